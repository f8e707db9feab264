/*
 * checkpoint_main.c: the daemon virtcheckpointd
 *
 * Puts the parts together: sockets, the supervisor if asked for, the gateway with the
 * main loop, and an end that lets running steps finish.  Exit status is that of
 * libvirt's daemons: 0, 1 for a wrong command line, 3 for what cannot be set up, 6 for
 * sockets, 10 for the driver (here: the engine).
 *
 * The order of the end matters.  First the socket files go, so that nobody new comes;
 * then clients are not read from any more while the answers they are owed still go out;
 * then sessions are closed, which wakes every worker that waits for a client's backend;
 * last the engine, whose steps finish.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#define G_LOG_DOMAIN "virtcheckpoint"

#include <glib-unix.h>
#include <glib.h>
#include <libvirt/libvirt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "checkpoint_backend.h"
#include "checkpoint_dispatch.h"
#include "checkpoint_file.h"
#include "checkpoint_gateway.h"
#include "checkpoint_listener.h"
#include "checkpoint_log.h"
#include "checkpoint_options.h"
#include "checkpoint_supervisor.h"

#define EXIT_INIT 3
#define EXIT_NETWORK 6
#define EXIT_DRIVER 10

#define MAX_CLIENTS 5000
#define RESERVED_FDS 128
#define DRAIN_USEC (10 * G_USEC_PER_SEC)
#define SOCKET_MODE_SYSTEM 0666
#define SOCKET_MODE_SESSION 0700

typedef struct virCheckpointDaemon {
    virCheckpointOptions options;
    gchar *backend;
    virCheckpointListener *listener;
    virCheckpointGateway *gateway;
    virCheckpointEngine *engine;
    virCheckpointDispatch *dispatch;
    GMainLoop *loop;
    gint64 idleSinceUsec; /* 0 while there is something to do */
} virCheckpointDaemon;

/* A client takes two descriptors, and there must be some left for the engine. */
static guint
virCheckpointDaemonMaxClients(void)
{
    struct rlimit limit = {0};

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return MAX_CLIENTS;

    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
        g_warning("cannot raise the limit of open files");
    if (limit.rlim_cur < 2 * (MAX_CLIENTS + RESERVED_FDS))
        return (guint)MAX((gint64)limit.rlim_cur / 2 - RESERVED_FDS, 1);
    return MAX_CLIENTS;
}

/* Sockets. */

static gboolean
virCheckpointDaemonListen(virCheckpointDaemon *daemon, GError **error)
{
    gboolean privileged = geteuid() == 0;
    g_autofree gchar *dir = g_path_get_dirname(daemon->options.socket);

    if (!virCheckpointListenerNewFromSystemd(&daemon->listener, error))
        return FALSE;
    if (daemon->listener)
        return TRUE;

    if (!daemon->options.socketGiven &&
        !virCheckpointFileMakeDirs(dir, privileged ? 0755 : 0700, error))
        return FALSE;
    daemon->listener = virCheckpointListenerNew(
        daemon->options.socket, privileged ? SOCKET_MODE_SYSTEM : SOCKET_MODE_SESSION,
        error);
    return daemon->listener != NULL;
}

/* With sockets of systemd's the read-write one tells where we are. */
static const gchar *
virCheckpointDaemonOwnPath(const virCheckpointDaemon *daemon)
{
    guint i;

    for (i = 0; i < virCheckpointListenerCount(daemon->listener); i++) {
        if (!virCheckpointListenerIsReadOnly(daemon->listener, i))
            return virCheckpointListenerGetPath(daemon->listener, i);
    }
    return daemon->options.socket;
}

static gboolean
virCheckpointDaemonFindBackend(virCheckpointDaemon *daemon)
{
    g_autofree gchar *readOnly = NULL;

    daemon->backend =
        daemon->options.backend
            ? g_strdup(daemon->options.backend)
            : virCheckpointBackendFind(virCheckpointDaemonOwnPath(daemon));
    readOnly = g_strconcat(daemon->backend, "-ro", NULL);
    if (!virCheckpointListenerHasPath(daemon->listener, daemon->backend) &&
        !virCheckpointListenerHasPath(daemon->listener, readOnly))
        return TRUE;

    fprintf(stderr, "%s: socket '%s' cannot be both ours and the backend's\n",
            g_get_prgname(), daemon->backend);
    return FALSE;
}

/* Before the sockets are made: making ours would replace a backend's that is down. */
static gboolean
virCheckpointDaemonCheckPaths(const virCheckpointDaemon *daemon)
{
    const gchar *own = daemon->options.socket;
    const gchar *backend = daemon->options.backend;
    g_autofree gchar *ownReadOnly = g_strconcat(own, "-ro", NULL);
    g_autofree gchar *backendReadOnly =
        g_strconcat(backend ? backend : "", "-ro", NULL);

    if (!backend || (!virCheckpointBackendSamePath(own, backend) &&
                     !virCheckpointBackendSamePath(ownReadOnly, backend) &&
                     !virCheckpointBackendSamePath(own, backendReadOnly)))
        return TRUE;

    fprintf(stderr, "%s: socket '%s' cannot be both ours and the backend's\n",
            g_get_prgname(), backend);
    return FALSE;
}

/* The engine. */

static void
virCheckpointDaemonBlockJob(const virCheckpointEngineEvent *event, gpointer data)
{
    virCheckpointDaemon *daemon = data;

    if (daemon->dispatch)
        virCheckpointDispatchBlockJob(daemon->dispatch, event);
}

static gboolean
virCheckpointDaemonStartEngine(virCheckpointDaemon *daemon)
{
    g_autofree gchar *uri = virCheckpointBackendUri(daemon->backend);
    const virCheckpointEngineConfig config = {
        .uri = uri,
        .stateDir = daemon->options.stateDir,
        .overlayDir = daemon->options.overlayDir,
        .blockJob = virCheckpointDaemonBlockJob,
        .data = daemon,
    };
    g_autoptr(GError) error = NULL;

    if (virEventRegisterDefaultImpl() < 0) {
        fprintf(stderr, "%s: libvirt's event loop cannot be set up\n", g_get_prgname());
        return FALSE;
    }
    if (!(daemon->engine = virCheckpointEngineNew(&config, &error))) {
        fprintf(stderr, "%s: %s\n", g_get_prgname(), error->message);
        return FALSE;
    }
    daemon->dispatch = virCheckpointDispatchNew(daemon->engine);
    return TRUE;
}

/* The loop. */

static gboolean
virCheckpointDaemonSignal(gpointer data)
{
    virCheckpointDaemon *daemon = data;

    g_info("stopping");
    g_main_loop_quit(daemon->loop);
    return G_SOURCE_CONTINUE;
}

static gboolean
virCheckpointDaemonIdle(gpointer data)
{
    virCheckpointDaemon *daemon = data;
    gint64 now = g_get_monotonic_time();

    if (virCheckpointGatewayCountClients(daemon->gateway) > 0 ||
        virCheckpointEngineIsBusy(daemon->engine)) {
        daemon->idleSinceUsec = 0;
    } else if (daemon->idleSinceUsec == 0) {
        daemon->idleSinceUsec = now;
    } else if (now - daemon->idleSinceUsec >=
               (gint64)daemon->options.timeoutSec * G_USEC_PER_SEC) {
        g_info("idle for %u seconds: leaving", daemon->options.timeoutSec);
        g_main_loop_quit(daemon->loop);
    }
    return G_SOURCE_CONTINUE;
}

static gboolean
virCheckpointDaemonWake(gpointer data)
{
    return G_SOURCE_CONTINUE;
}

/* Lets answers go out, for a while. */
static void
virCheckpointDaemonDrain(virCheckpointDaemon *daemon)
{
    gint64 until = g_get_monotonic_time() + DRAIN_USEC;
    guint wake = g_timeout_add(100, virCheckpointDaemonWake, NULL);

    virCheckpointGatewayDrain(daemon->gateway);
    while (virCheckpointGatewayIsBusy(daemon->gateway) &&
           g_get_monotonic_time() < until)
        g_main_context_iteration(NULL, TRUE);
    g_source_remove(wake);
}

/* The files are the supervisor's as long as there is one: it may start another worker.
 */
static void
virCheckpointDaemonRemoveSockets(virCheckpointDaemon *daemon)
{
    if (!daemon->options.supervise || virCheckpointSupervisorIsOrphan())
        virCheckpointListenerRemoveFiles(daemon->listener);
}

static int
virCheckpointDaemonServe(virCheckpointDaemon *daemon)
{
    gboolean privileged = geteuid() == 0;
    virCheckpointGatewayConfig config = {
        .backend = daemon->backend,
        .startSession = !privileged && !daemon->options.backend,
        .maxClients = virCheckpointDaemonMaxClients(),
        .hooks = virCheckpointDispatchHooks(),
    };

    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    g_unix_signal_add(SIGTERM, virCheckpointDaemonSignal, daemon);
    g_unix_signal_add(SIGINT, virCheckpointDaemonSignal, daemon);
    daemon->loop = g_main_loop_new(NULL, FALSE);
    if (daemon->options.timeoutSec > 0)
        g_timeout_add(250, virCheckpointDaemonIdle, daemon);

    if (!virCheckpointDaemonStartEngine(daemon)) {
        virCheckpointDaemonRemoveSockets(daemon);
        g_main_loop_unref(daemon->loop);
        return EXIT_DRIVER;
    }
    config.hooksData = daemon->dispatch;
    daemon->gateway = virCheckpointGatewayNew(&config, daemon->listener);
    g_info("forwarding to '%s'", daemon->backend);
    g_main_loop_run(daemon->loop);

    virCheckpointGatewayStopAccepting(daemon->gateway);
    virCheckpointEngineInterrupt(daemon->engine);
    virCheckpointDaemonRemoveSockets(daemon);
    virCheckpointDaemonDrain(daemon);
    virCheckpointGatewayCloseClients(daemon->gateway);
    virCheckpointDispatchFree(g_steal_pointer(&daemon->dispatch));
    virCheckpointGatewayFree(g_steal_pointer(&daemon->gateway));
    virCheckpointEngineFree(g_steal_pointer(&daemon->engine));
    g_main_loop_unref(daemon->loop);
    return EXIT_SUCCESS;
}

static int
virCheckpointDaemonRun(virCheckpointDaemon *daemon)
{
    g_autoptr(GError) error = NULL;
    int status = EXIT_SUCCESS;

    if (!virCheckpointDaemonCheckPaths(daemon))
        return EXIT_NETWORK;
    if (!virCheckpointDaemonListen(daemon, &error)) {
        fprintf(stderr, "%s: %s\n", g_get_prgname(), error->message);
        return EXIT_NETWORK;
    }
    if (!virCheckpointDaemonFindBackend(daemon))
        status = EXIT_NETWORK;
    else if (daemon->options.supervise &&
             virCheckpointSupervisorRun(daemon->listener, &status) ==
                 VIR_CHECKPOINT_SUPERVISOR_OVER)
        g_info("the supervisor leaves with status %d", status);
    else
        return virCheckpointDaemonServe(daemon);

    virCheckpointListenerRemoveFiles(daemon->listener);
    return status;
}

int
main(int argc, char **argv)
{
    virCheckpointDaemon daemon = {0};
    virCheckpointOptionsOutcome outcome;
    int status = EXIT_SUCCESS;

    g_set_prgname("virtcheckpointd");
    outcome = virCheckpointOptionsParse(&daemon.options, argc, argv);
    if (outcome == VIR_CHECKPOINT_OPTIONS_RUN) {
        virCheckpointLogInit(daemon.options.verbose);
        status = virCheckpointDaemonRun(&daemon);
    } else if (outcome == VIR_CHECKPOINT_OPTIONS_WRONG) {
        status = EXIT_FAILURE;
    }
    virCheckpointListenerFree(daemon.listener);
    g_free(daemon.backend);
    virCheckpointOptionsClear(&daemon.options);
    return status;
}
