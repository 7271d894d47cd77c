/*
 * methods.h - the methods of AMQP 0-9-1 as numbers, from methods.def.
 *
 * Owns: nothing.
 * Core: constants for the worker's machine, its tests and any client code of ours.
 * Spec: AMQP 0-9-1 section 1.3.
 */
#ifndef TICKWIRE_AMQP_METHODS_H
#define TICKWIRE_AMQP_METHODS_H

#define AMQP_CLASS_CONNECTION 10u
#define AMQP_CLASS_CHANNEL    20u
#define AMQP_CLASS_EXCHANGE   40u
#define AMQP_CLASS_QUEUE      50u
#define AMQP_CLASS_BASIC      60u
#define AMQP_CLASS_CONFIRM    85u

/* AMQP_basic_publish == 40 */
enum amqp_method_id {
#define AMQP_METHOD(cid, mid, cname, mname, dir, where, args, content, handler) AMQP_##cname##_##mname = (mid),
#include "amqp/methods.def"
#undef AMQP_METHOD
};

/* Class in the upper half: AMQP_M_basic_publish == 60 << 16 | 40 */
enum amqp_method_key {
#define AMQP_METHOD(cid, mid, cname, mname, dir, where, args, content, handler) AMQP_M_##cname##_##mname = (cid) << 16 | (mid),
#include "amqp/methods.def"
#undef AMQP_METHOD
};

#define AMQP_FRAME_METHOD     1u
#define AMQP_FRAME_HEADER     2u
#define AMQP_FRAME_BODY       3u
#define AMQP_FRAME_HEARTBEAT  8u
#define AMQP_FRAME_END        0xceu
#define AMQP_FRAME_HEAD_BYTES 7u
#define AMQP_FRAME_MIN_SIZE   4096u /* frame-max may not be lower; the limit before connection.open */

#endif
