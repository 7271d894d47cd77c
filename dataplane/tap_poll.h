/*
 * tap_poll.h - net_tap as a polled port: its receive trigger called by the worker instead of by a signal a frame.
 *
 * Owns: the disposition of the realtime signal that the driver chose.
 * Core: the main thread, once, after the port was started; the worker calls what it is given.
 * Spec: none; dataplane/README.md has the measurement.
 */
#ifndef TICKWIRE_DP_TAP_POLL_H
#define TICKWIRE_DP_TAP_POLL_H

struct dp_tap_trigger {
	void (*call)(int signo); /* NULL: the driver goes on with its signal */
	int signo;
};

/* Finds net_tap's signal handler, has the signal ignored from now on, and hands the handler out to be called before each receive.
 */
struct dp_tap_trigger dp_tap_poll_take(void);

#endif
