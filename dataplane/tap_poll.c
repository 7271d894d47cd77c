/*
 * tap_poll.c - net_tap as a polled port.
 *
 * Owns: see tap_poll.h.
 * Core: the main thread (of the process: its signal mask is changed), before the workers start.
 * Spec: none.
 *
 * net_tap asks the kernel for a realtime signal a frame (O_ASYNC, F_SETSIG); its handler bumps a counter, and the driver reads the
 * tap only when the counter has moved. For a thread that polls anyway that is the wrong way round: each frame interrupts the
 * worker with an inter-processor interrupt, a signal frame and its return, two thirds of the worker's time at 1 to 50. So the
 * handler is looked up where the driver has registered it and called as the function that it is, before each receive burst:
 * the driver then reads the tap each time, an EAGAIN when there is nothing. The signal itself is ignored, which the kernel
 * notices before it interrupts anybody.
 */
#include "dataplane/tap_poll.h"

#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

static int is_net_tap(void (*handler)(int))
{
	Dl_info info;
	void *address;

	memcpy(&address, &handler, sizeof address);
	return dladdr(address, &info) != 0 && info.dli_fname != NULL && strstr(info.dli_fname, "net_tap") != NULL;
}

/*
 * The kernel drops an ignored signal when it is sent only if the thread it looks at first, the process's main thread, does not
 * block it (signal(7)); else it is queued and interrupts whoever does not block it, all for nothing.
 */
static void ignore(int signo)
{
	struct sigaction sa = {.sa_handler = SIG_IGN};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	sigaction(signo, &sa, NULL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

struct dp_tap_trigger dp_tap_poll_take(void)
{
	static struct dp_tap_trigger trigger; /* all queues of the driver have one */

	for (int signo = SIGRTMIN; trigger.call == NULL && signo <= SIGRTMAX; signo++) {
		struct sigaction sa;

		if (sigaction(signo, NULL, &sa) != 0 || sa.sa_handler == SIG_DFL || sa.sa_handler == SIG_IGN ||
		    !is_net_tap(sa.sa_handler))
			continue;
		trigger = (struct dp_tap_trigger){sa.sa_handler, signo};
		ignore(signo);
		break;
	}
	return trigger;
}
