/*
 * ctl_proto.h - what tickctl and control say to each other.
 *
 * Owns: nothing.
 * Core: control's event loop and tickctl.
 * Spec: our own. Unix stream socket, mode 0600; one JSON object a line each way, in order.
 *
 * Request:  {"command": "list_queues", "vhost": "/", ...}   at most CTL_PROTO_REQUEST_MAX octets with its newline
 * Response: {"code": 0, "result": ...}                      at most CTL_PROTO_RESPONSE_MAX
 *           {"code": 69, "error": "a sentence: cause and cure"}   codes are exit statuses
 *
 * Commands, their members beside "command", and their results:
 *   status, ping, stats, matcher, version                 object
 *   list_queues, list_exchanges, list_bindings (vhost)    {"rows": [object, …]}
 *   list_connections, list_channels, list_consumers, list_vhosts, list_users   the same
 *   close_connection (id, reason), close_all_connections (vhost or null, reason)   {"closed": count}
 *   purge_queue, delete_queue (vhost, name)               {}
 */
#ifndef TICKWIRE_CTL_PROTO_H
#define TICKWIRE_CTL_PROTO_H

#define CTL_PROTO_SOCKET       "/run/tickwire/control.sock"
#define CTL_PROTO_REQUEST_MAX  65536u
#define CTL_PROTO_RESPONSE_MAX (256u << 20)

/* sysexits, as rabbitmqctl uses them */
enum ctl_exit {
	CTL_EXIT_OK = 0,
	CTL_EXIT_USAGE = 64,
	CTL_EXIT_DATA = 65,
	CTL_EXIT_NOUSER = 67,
	CTL_EXIT_UNAVAILABLE = 69,
	CTL_EXIT_SOFTWARE = 70,
	CTL_EXIT_IOERR = 74,
	CTL_EXIT_TEMPFAIL = 75,
	CTL_EXIT_CONFIG = 78
};

#endif
