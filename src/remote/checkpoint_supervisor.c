/*
 * checkpoint_supervisor.c: hold the sockets, restart the daemon
 *
 * In front of everything else nobody may notice that we died: libvirt's clients go by
 * the existence of the socket file and fail on one that nobody answers at.  Where
 * systemd does not hold the sockets, this small parent does: it does nothing but wait.
 * While a worker is being replaced, clients wait in the backlog of the same sockets.
 *
 *   worker killed by a signal          the next one at once, then once a second
 *   worker fails soon after its start  its status is ours: a wrong option, a held store
 *   worker fails later                 as killed
 *   worker leaves idle (status 0)      we leave too, unless somebody just connected
 *   SIGTERM, SIGINT                    passed on; when the worker has ended, so do we
 *   this parent is killed              the worker serves on and removes the sockets
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#define G_LOG_DOMAIN "virtcheckpoint"

#include "checkpoint_supervisor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define EARLY_USEC (2 * G_USEC_PER_SEC)
#define RESTART_PAUSE_USEC (G_USEC_PER_SEC / 2)

static pid_t virCheckpointSupervisorParent; /* in a worker: who forked it */

gboolean
virCheckpointSupervisorIsOrphan(void)
{
    return virCheckpointSupervisorParent > 0 &&
           getppid() != virCheckpointSupervisorParent;
}

/* A client is waiting to be accepted. */
static gboolean
virCheckpointSupervisorIsWanted(const virCheckpointListener *listener)
{
    guint count = virCheckpointListenerCount(listener);
    g_autofree struct pollfd *fds = g_new0(struct pollfd, count);
    guint i;

    for (i = 0; i < count; i++) {
        fds[i].fd = virCheckpointListenerGetFd(listener, i);
        fds[i].events = POLLIN;
    }
    return poll(fds, count, 0) > 0;
}

/* Waits for the worker; passes signals on and notes in @stop that one came. */
static int
virCheckpointSupervisorWait(virCheckpointListener *listener,
                            pid_t worker,
                            const sigset_t *signals,
                            gboolean *stop)
{
    for (;;) {
        int number = sigwaitinfo(signals, NULL);
        int status = 0;

        if (number == SIGTERM || number == SIGINT) {
            *stop = TRUE;
            virCheckpointListenerRemoveFiles(listener);
            kill(worker, SIGTERM);
        }
        if (waitpid(worker, &status, WNOHANG) == worker)
            return status;
    }
}

static pid_t
virCheckpointSupervisorFork(const sigset_t *before)
{
    pid_t parent = getpid();
    pid_t worker = fork();

    if (worker == 0) {
        virCheckpointSupervisorParent = parent;
        sigprocmask(SIG_SETMASK, before, NULL);
    }
    return worker;
}

/* What the end of a worker means; TRUE: another one. */
static gboolean
virCheckpointSupervisorGoOn(const virCheckpointListener *listener,
                            int status,
                            gint64 livedUsec,
                            int *ours)
{
    if (WIFSIGNALED(status)) {
        g_warning("the daemon was killed by signal %d: starting another one",
                  WTERMSIG(status));
        return TRUE;
    }
    *ours = WEXITSTATUS(status);
    if (*ours == 0)
        return virCheckpointSupervisorIsWanted(listener);
    if (livedUsec < EARLY_USEC)
        return FALSE;

    g_warning("the daemon failed with status %d: starting another one", *ours);
    return TRUE;
}

virCheckpointSupervisorOutcome
virCheckpointSupervisorRun(virCheckpointListener *listener, int *status)
{
    sigset_t signals;
    sigset_t before;
    gboolean stop = FALSE;
    gboolean again = TRUE;

    *status = EXIT_FAILURE;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, &before);
    signal(SIGHUP, SIG_IGN);

    while (again && !stop) {
        gint64 started = g_get_monotonic_time();
        gint64 lived = 0;
        pid_t worker = virCheckpointSupervisorFork(&before);
        int ended = 0;

        if (worker == 0)
            return VIR_CHECKPOINT_SUPERVISOR_CHILD;
        if (worker < 0) {
            g_warning("cannot fork: %s", g_strerror(errno));
            break;
        }
        ended = virCheckpointSupervisorWait(listener, worker, &signals, &stop);
        lived = g_get_monotonic_time() - started;
        again = virCheckpointSupervisorGoOn(listener, ended, lived, status);
        if (again && !stop && lived < EARLY_USEC)
            g_usleep(RESTART_PAUSE_USEC);
    }
    if (stop && *status == EXIT_FAILURE)
        *status = EXIT_SUCCESS;
    return VIR_CHECKPOINT_SUPERVISOR_OVER;
}
