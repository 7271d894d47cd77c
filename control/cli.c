/*
 * cli.c - accepts clients on the CLI socket, reads requests a line at a time, and dispatches them.
 *
 * Owns: the listener and its clients' buffers, bounded.
 * Core: control's event loop.
 * Spec: control/ctl_proto.h.
 */
#include "control/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

#include "control/ctl_proto.h"
#include "control/log.h"
#include "control/map.h"

#define CLIENTS_MAX 64u

struct client {
	LIST_ENTRY(client) all;
	struct ctl_cli *cli;
	struct bufferevent *bev;
	bool closing; /* after what is being written */
};

struct ctl_cli {
	struct ctl_control *control;
	struct evconnlistener *listener;
	LIST_HEAD(, client) clients;
	uint32_t clients_count;
	char path[108];
};

static json_t *failure(int code, const char *sentence)
{
	return json_pack("{s:i, s:s}", "code", code, "error", sentence);
}

static json_t *success(json_t *result)
{
	return json_pack("{s:i, s:o}", "code", 0, "result", result);
}

static json_t *not_attached(void)
{
	return failure(CTL_EXIT_UNAVAILABLE,
		       "no dataplane is attached to control: start tickwire-dataplane, or look into control's log why "
		       "it does not attach");
}

/* ---- commands ---- */

/* The vhost that a request names ("/" when it names none). NULL: there is no such one. */
static struct ctl_vhost *vhost_of(struct ctl_control *c, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "vhost"));

	return ctl_rib_vhost_find(&c->rib, ctl_span(name != NULL ? name : "/"));
}

static json_t *vhost_command(struct ctl_control *c, const char *command, struct ctl_vhost *v)
{
	if (strcmp(command, "list_queues") == 0)
		return ctl_list_queues(c, v);
	if (strcmp(command, "list_exchanges") == 0)
		return ctl_list_exchanges(c, v);
	if (strcmp(command, "list_bindings") == 0)
		return ctl_list_bindings(c, v);
	if (strcmp(command, "matcher") == 0)
		return ctl_show_matcher(c, v);
	return ctl_list_consumers(c, v);
}

static json_t *queue_command(struct ctl_control *c, const char *command, struct ctl_vhost *v, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "name"));
	struct ctl_queue *q = name != NULL ? ctl_rib_queue(&c->rib, v, ctl_span(name)) : NULL;
	struct amqp_record rec = {.kind = AMQP_OP_QUEUE_PURGE};
	char text[400];

	if (q == NULL) {
		snprintf(text, sizeof text, "no queue '%.200s' in that vhost: tickctl list_queues shows those that there are",
			 name != NULL ? name : "");
		return failure(CTL_EXIT_DATA, text);
	}
	ctl_log(CTL_LOG_INFO, "operator: %s '%.200s'", command, name);
	rec.id = q->id;
	if (strcmp(command, "delete_queue") == 0)
		ctl_rib_queue_delete(&c->rib, q);
	else
		for (uint32_t w = 0; w < c->rib.workers_count; w++)
			ctl_link_emit(&c->link, w, &rec);
	if (!ctl_control_commit(c))
		return failure(CTL_EXIT_SOFTWARE, "the change could not be written to the disk: look into control's log");
	return success(json_object());
}

static json_t *close_command(struct ctl_control *c, const char *command, json_t *request)
{
	const char *id = json_string_value(json_object_get(request, "id"));
	const char *vhost = json_string_value(json_object_get(request, "vhost"));
	const char *reason = json_string_value(json_object_get(request, "reason"));
	bool one = strcmp(command, "close_connection") == 0;
	unsigned closed;

	if (one && id == NULL)
		return failure(CTL_EXIT_USAGE, "which connection? give its pid or name as tickctl list_connections shows it");
	closed = ctl_close_connections(c, one ? id : NULL, one ? NULL : vhost, reason != NULL ? reason : "closed by an operator");
	if (one && closed == 0)
		return failure(CTL_EXIT_DATA, "no such connection: tickctl list_connections pid name shows those that there are");
	ctl_log(CTL_LOG_INFO, "operator: %s: %u connections", command, closed);
	ctl_link_flush(&c->link);
	return success(json_pack("{s:i}", "closed", (int)closed));
}

enum command_kind { NEEDS_NOTHING, NEEDS_VHOST, NEEDS_DATAPLANE, NEEDS_BOTH };
static const struct {
	const char *name;
	enum command_kind kind;
} commands[] = {
	{"version", NEEDS_NOTHING},
	{"status", NEEDS_NOTHING},
	{"list_vhosts", NEEDS_NOTHING},
	{"list_users", NEEDS_NOTHING},
	{"list_queues", NEEDS_VHOST},
	{"list_exchanges", NEEDS_VHOST},
	{"list_bindings", NEEDS_VHOST},
	{"matcher", NEEDS_VHOST},
	{"ping", NEEDS_DATAPLANE},
	{"stats", NEEDS_DATAPLANE},
	{"list_connections", NEEDS_DATAPLANE},
	{"list_channels", NEEDS_DATAPLANE},
	{"close_connection", NEEDS_DATAPLANE},
	{"close_all_connections", NEEDS_DATAPLANE},
	{"list_consumers", NEEDS_BOTH},
	{"purge_queue", NEEDS_BOTH},
	{"delete_queue", NEEDS_BOTH},
};

static json_t *plain_command(struct ctl_control *c, const char *command, json_t *request)
{
	if (strcmp(command, "status") == 0)
		return success(ctl_show_status(c));
	if (strcmp(command, "stats") == 0)
		return success(ctl_show_stats(c));
	if (strcmp(command, "list_vhosts") == 0)
		return success(ctl_list_vhosts(c));
	if (strcmp(command, "list_users") == 0)
		return success(ctl_list_users(c));
	if (strcmp(command, "list_connections") == 0)
		return success(ctl_list_connections(c));
	if (strcmp(command, "list_channels") == 0)
		return success(ctl_list_channels(c));
	if (strncmp(command, "close_", 6) == 0)
		return close_command(c, command, request);
	return success(json_pack("{s:s}", "version", TICKWIRE_VERSION));
}

json_t *ctl_cli_answer(struct ctl_control *c, json_t *request)
{
	const char *command = json_string_value(json_object_get(request, "command"));
	struct ctl_vhost *v = vhost_of(c, request);
	enum command_kind kind;
	size_t i = 0, count = sizeof commands / sizeof commands[0];

	while (i < count && (command == NULL || strcmp(commands[i].name, command) != 0))
		i++;
	if (i == count)
		return failure(CTL_EXIT_USAGE, "control does not know this command: are tickctl and control of one release?");
	kind = commands[i].kind;
	if ((kind == NEEDS_DATAPLANE || kind == NEEDS_BOTH) && !ctl_control_attached(c))
		return not_attached();
	if ((kind == NEEDS_VHOST || kind == NEEDS_BOTH) && v == NULL)
		return failure(CTL_EXIT_DATA, "no such vhost: tickctl list_vhosts shows those that there are");
	if (strcmp(command, "purge_queue") == 0 || strcmp(command, "delete_queue") == 0)
		return queue_command(c, command, v, request);
	if (kind == NEEDS_VHOST || kind == NEEDS_BOTH)
		return success(vhost_command(c, command, v));
	return plain_command(c, command, request);
}

/* ---- clients ---- */

static void client_free(struct client *cl)
{
	LIST_REMOVE(cl, all);
	cl->cli->clients_count--;
	bufferevent_free(cl->bev);
	free(cl);
}

static void respond(struct client *cl, json_t *answer)
{
	char *text = answer != NULL ? json_dumps(answer, JSON_COMPACT) : NULL;

	if (text == NULL || strlen(text) >= CTL_PROTO_RESPONSE_MAX) {
		free(text);
		text = strdup("{\"code\":70,\"error\":\"the answer is too large or could not be made\"}");
	}
	if (text != NULL) {
		evbuffer_add(bufferevent_get_output(cl->bev), text, strlen(text));
		evbuffer_add(bufferevent_get_output(cl->bev), "\n", 1);
	}
	free(text);
	json_decref(answer);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct client *cl = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	size_t len;
	char *line;

	while (!cl->closing && (line = evbuffer_readln(in, &len, EVBUFFER_EOL_LF)) != NULL) {
		json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);

		if (json_is_object(request))
			respond(cl, ctl_cli_answer(cl->cli->control, request));
		else
			respond(cl, failure(CTL_EXIT_DATA, "the request is no JSON object"));
		json_decref(request);
		free(line);
	}
	if (!cl->closing && evbuffer_get_length(in) >= CTL_PROTO_REQUEST_MAX) {
		cl->closing = true;
		respond(cl, failure(CTL_EXIT_DATA, "the request is too long"));
		evbuffer_drain(in, evbuffer_get_length(in));
	}
}

static void on_written(struct bufferevent *bev, void *arg)
{
	struct client *cl = arg;

	if (cl->closing && evbuffer_get_length(bufferevent_get_output(bev)) == 0)
		client_free(cl);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct client *cl = arg;

	/* A client that shut down its half still gets what it asked for. */
	if ((what & BEV_EVENT_EOF) != 0 && evbuffer_get_length(bufferevent_get_output(bev)) != 0)
		cl->closing = true;
	else
		client_free(cl);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *addr, int len, void *arg)
{
	struct ctl_cli *cli = arg;
	struct client *cl;
	struct bufferevent *bev;

	(void)addr;
	(void)len;
	bev = cli->clients_count < CLIENTS_MAX ? bufferevent_socket_new(evconnlistener_get_base(l), fd, BEV_OPT_CLOSE_ON_FREE)
					       : NULL;
	if (bev == NULL) {
		close((int)fd);
		return;
	}
	cl = ctl_alloc(sizeof *cl);
	cl->cli = cli;
	cl->bev = bev;
	LIST_INSERT_HEAD(&cli->clients, cl, all);
	cli->clients_count++;
	bufferevent_setcb(bev, on_read, on_written, on_event, cl);
	bufferevent_setwatermark(bev, EV_READ, 0, CTL_PROTO_REQUEST_MAX);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

/* A socket file on which nobody answers is a dead process's, and goes. */
static bool path_is_free(const char *path, char *err, size_t err_bytes)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;
	bool busy;

	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
	busy = fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0;
	if (fd >= 0)
		close(fd);
	if (busy) {
		snprintf(err, err_bytes, "another control answers on %s: stop it, or give this one another cli_socket", path);
		return false;
	}
	if (lstat(path, &st) != 0)
		return true;
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(err, err_bytes, "%s is there and no socket: name another cli_socket", path);
		return false;
	}
	unlink(path);
	return true;
}

struct ctl_cli *ctl_cli_new(struct ctl_control *c, const char *path, char *err, size_t err_bytes)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct ctl_cli *cli;
	mode_t mask;

	if (!path_is_free(path, err, err_bytes))
		return NULL;
	cli = ctl_alloc(sizeof *cli);
	cli->control = c;
	LIST_INIT(&cli->clients);
	snprintf(cli->path, sizeof cli->path, "%s", path);
	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
	mask = umask(0177);
	cli->listener = evconnlistener_new_bind(c->base, on_accept, cli, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 16,
						(struct sockaddr *)&addr, sizeof addr);
	umask(mask);
	if (cli->listener != NULL)
		return cli;
	snprintf(err, err_bytes, "the CLI socket %s cannot be made: %s; make its directory, or name another cli_socket", path,
		 strerror(errno));
	free(cli);
	return NULL;
}

void ctl_cli_free(struct ctl_cli *cli)
{
	while (!LIST_EMPTY(&cli->clients))
		client_free(LIST_FIRST(&cli->clients));
	evconnlistener_free(cli->listener);
	unlink(cli->path);
	free(cli);
}
