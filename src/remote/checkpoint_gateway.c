/*
 * checkpoint_gateway.c: accepts clients and connects them to the backend
 *
 * Each client that is accepted gets a thread of its own for the one blocking thing
 * about it: a connect() to the backend with the client's identity.  Everything else
 * happens on the main context.  Clients of the read-only socket go to the backend's
 * read-only socket; where that does not exist (daemons of a session have none) they go
 * to the other one and OPEN is made to say read-only.
 *
 * Invariants: at most MAX_CONNECTING threads and as many clients as configured, further
 * ones wait in the backlog; an ordinary user's daemon serves that user and root only,
 * because to the backend all its clients are that user.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#define G_LOG_DOMAIN "virtcheckpoint"

#include "checkpoint_gateway.h"

#include <errno.h>
#include <glib-unix.h>
#include <sys/socket.h>
#include <unistd.h>

#include "checkpoint_backend.h"
#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_identity.h"
#include "checkpoint_refusal.h"

#define MAX_CONNECTING 64
#define ACCEPT_AT_ONCE 16
#define ACCEPT_PAUSE_MS 500

typedef struct virCheckpointGatewayPort {
    virCheckpointGateway *gateway;
    int fd;
    gboolean readOnly;
    GSource *source; /* NULL while not accepting */
} virCheckpointGatewayPort;

struct virCheckpointGateway {
    gint refs; /* atomic: connecting threads hold one each */
    gchar *backend;
    gboolean startSession;
    guint maxClients;
    const virCheckpointClientHooks *hooks;
    gpointer hooksData;
    GPtrArray *ports;
    GPtrArray *clients; /* virCheckpointClient, a reference each */
    guint connecting;
    gboolean stopped;
    GSource *pause; /* set while accept() is out of descriptors */
};

/** One client on its way to the backend. */
typedef struct virCheckpointGatewayConnect {
    virCheckpointGateway *gateway;
    virCheckpointIdentity *identity;
    gboolean readOnly;
    gboolean forced; /* read-only, on the backend's read-write socket */
    int peerFd;
    int backendFd;
    GError *error;
} virCheckpointGatewayConnect;

static void
virCheckpointGatewayUpdatePorts(virCheckpointGateway *gateway);

static void
virCheckpointGatewayUnref(virCheckpointGateway *gateway)
{
    if (!g_atomic_int_dec_and_test(&gateway->refs))
        return;

    g_ptr_array_unref(gateway->ports);
    g_ptr_array_unref(gateway->clients);
    g_free(gateway->backend);
    g_free(gateway);
}

static void
virCheckpointGatewayConnectFree(virCheckpointGatewayConnect *job)
{
    virCheckpointFdCleanup(&job->peerFd);
    virCheckpointFdCleanup(&job->backendFd);
    virCheckpointIdentityFree(job->identity);
    g_clear_error(&job->error);
    virCheckpointGatewayUnref(job->gateway);
    g_free(job);
}

/* Sessions. */

static void
virCheckpointGatewayClientEnded(virCheckpointClient *client, gpointer data)
{
    virCheckpointGateway *gateway = data;

    g_ptr_array_remove_fast(gateway->clients, client);
    virCheckpointGatewayUpdatePorts(gateway);
}

static void
virCheckpointGatewayStart(virCheckpointGateway *gateway,
                          virCheckpointGatewayConnect *job)
{
    virCheckpointClientFlags flags = 0;

    if (job->readOnly)
        flags |= VIR_CHECKPOINT_CLIENT_READ_ONLY;
    if (job->forced)
        flags |= VIR_CHECKPOINT_CLIENT_FORCE_READ_ONLY;
    g_debug("client pid=%d uid=%u %s", (gint)job->identity->pid,
            (guint)job->identity->uid, job->readOnly ? "read-only" : "read-write");
    g_ptr_array_add(gateway->clients,
                    virCheckpointClientNew(virCheckpointFdSteal(&job->peerFd),
                                           virCheckpointFdSteal(&job->backendFd), flags,
                                           gateway->hooks, gateway->hooksData,
                                           virCheckpointGatewayClientEnded, gateway));
}

static gboolean
virCheckpointGatewayConnected(gpointer data)
{
    virCheckpointGatewayConnect *job = data;
    virCheckpointGateway *gateway = job->gateway;

    gateway->connecting--;
    if (gateway->stopped) {
        virCheckpointGatewayConnectFree(job);
        return G_SOURCE_REMOVE;
    }
    if (job->backendFd >= 0) {
        virCheckpointGatewayStart(gateway, job);
    } else {
        g_info("client pid=%d uid=%u refused: %s", (gint)job->identity->pid,
               (guint)job->identity->uid, job->error->message);
        virCheckpointRefuse(virCheckpointFdSteal(&job->peerFd),
                            virCheckpointErrorCode(job->error), job->error->message);
    }
    virCheckpointGatewayUpdatePorts(gateway);
    virCheckpointGatewayConnectFree(job);
    return G_SOURCE_REMOVE;
}

/* The thread. */

static int
virCheckpointGatewayTryConnect(virCheckpointGatewayConnect *job, GError **error)
{
    const gchar *path = job->gateway->backend;
    g_autofree gchar *readOnlyPath = g_strconcat(path, "-ro", NULL);

    if (job->readOnly && g_file_test(readOnlyPath, G_FILE_TEST_EXISTS))
        return virCheckpointIdentityConnect(job->identity, readOnlyPath, error);

    job->forced = job->readOnly;
    return virCheckpointIdentityConnect(job->identity, path, error);
}

static gpointer
virCheckpointGatewayConnectThread(gpointer data)
{
    virCheckpointGatewayConnect *job = data;
    g_autoptr(GSource) source = g_idle_source_new();

    job->backendFd = virCheckpointGatewayTryConnect(job, &job->error);
    if (job->backendFd < 0 && job->gateway->startSession) {
        g_autoptr(GError) startError = NULL;

        if (virCheckpointBackendStartSession(job->gateway->backend, &startError)) {
            g_clear_error(&job->error);
            job->backendFd = virCheckpointGatewayTryConnect(job, &job->error);
        } else {
            g_info("cannot start the session's daemon: %s", startError->message);
        }
    }
    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_callback(source, virCheckpointGatewayConnected, job, NULL);
    g_source_attach(source, NULL);
    return NULL;
}

/* Accepting. */

static gboolean
virCheckpointGatewayAdmits(const virCheckpointIdentity *identity)
{
    if (geteuid() == 0 || identity->uid == 0 || identity->uid == geteuid())
        return TRUE;

    g_info("client pid=%d uid=%u refused: not this daemon's user", (gint)identity->pid,
           (guint)identity->uid);
    return FALSE;
}

static void
virCheckpointGatewayConnectClient(virCheckpointGateway *gateway,
                                  int peerFd,
                                  gboolean readOnly)
{
    virCheckpointGatewayConnect *job = g_new0(virCheckpointGatewayConnect, 1);
    g_autoptr(GError) error = NULL;
    GThread *thread = NULL;

    g_atomic_int_inc(&gateway->refs);
    job->gateway = gateway;
    job->readOnly = readOnly;
    job->peerFd = peerFd;
    job->backendFd = -1;
    job->identity = virCheckpointIdentityOfPeer(peerFd, &error);
    if (job->identity && virCheckpointGatewayAdmits(job->identity))
        thread =
            g_thread_try_new("connect", virCheckpointGatewayConnectThread, job, &error);
    if (!thread) {
        if (error)
            g_warning("client refused: %s", error->message);
        virCheckpointGatewayConnectFree(job);
        return;
    }
    gateway->connecting++;
    g_thread_unref(thread);
}

static gboolean
virCheckpointGatewayAcceptAgain(gpointer data)
{
    virCheckpointGateway *gateway = data;

    g_clear_pointer(&gateway->pause, g_source_unref);
    virCheckpointGatewayUpdatePorts(gateway);
    return G_SOURCE_REMOVE;
}

static void
virCheckpointGatewayPause(virCheckpointGateway *gateway)
{
    g_warning("cannot accept clients: %s", g_strerror(errno));
    gateway->pause = g_timeout_source_new(ACCEPT_PAUSE_MS);
    g_source_set_callback(gateway->pause, virCheckpointGatewayAcceptAgain, gateway,
                          NULL);
    g_source_attach(gateway->pause, NULL);
    virCheckpointGatewayUpdatePorts(gateway);
}

static gboolean
virCheckpointGatewayAccept(gint fd, GIOCondition condition, gpointer data)
{
    virCheckpointGatewayPort *port = data;
    guint i;

    for (i = 0; i < ACCEPT_AT_ONCE && port->source; i++) {
        int peerFd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (peerFd >= 0) {
            virCheckpointGatewayConnectClient(port->gateway, peerFd, port->readOnly);
            virCheckpointGatewayUpdatePorts(port->gateway);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            break;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            virCheckpointGatewayPause(port->gateway);
        }
    }
    return G_SOURCE_CONTINUE;
}

static void
virCheckpointGatewayPortStop(virCheckpointGatewayPort *port)
{
    if (!port->source)
        return;

    g_source_destroy(port->source);
    g_clear_pointer(&port->source, g_source_unref);
}

static void
virCheckpointGatewayPortStart(virCheckpointGatewayPort *port)
{
    if (port->source)
        return;

    port->source = g_unix_fd_source_new(port->fd, G_IO_IN);
    g_source_set_callback(port->source, G_SOURCE_FUNC(virCheckpointGatewayAccept), port,
                          NULL);
    g_source_attach(port->source, NULL);
}

static void
virCheckpointGatewayPortFree(virCheckpointGatewayPort *port)
{
    virCheckpointGatewayPortStop(port);
    g_free(port);
}

/* Accepts exactly while there is room. */
static void
virCheckpointGatewayUpdatePorts(virCheckpointGateway *gateway)
{
    gboolean room = !gateway->stopped && !gateway->pause &&
                    gateway->connecting < MAX_CONNECTING &&
                    virCheckpointGatewayCountClients(gateway) < gateway->maxClients;
    guint i;

    for (i = 0; i < gateway->ports->len; i++) {
        if (room)
            virCheckpointGatewayPortStart(g_ptr_array_index(gateway->ports, i));
        else
            virCheckpointGatewayPortStop(g_ptr_array_index(gateway->ports, i));
    }
}

virCheckpointGateway *
virCheckpointGatewayNew(const virCheckpointGatewayConfig *config,
                        virCheckpointListener *listener)
{
    virCheckpointGateway *gateway = g_new0(virCheckpointGateway, 1);
    guint i;

    gateway->refs = 1;
    gateway->backend = g_strdup(config->backend);
    gateway->startSession = config->startSession;
    gateway->maxClients = config->maxClients;
    gateway->hooks = config->hooks;
    gateway->hooksData = config->hooksData;
    gateway->ports =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointGatewayPortFree);
    gateway->clients =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointClientUnref);
    for (i = 0; i < virCheckpointListenerCount(listener); i++) {
        virCheckpointGatewayPort *port = g_new0(virCheckpointGatewayPort, 1);

        port->gateway = gateway;
        port->fd = virCheckpointListenerGetFd(listener, i);
        port->readOnly = virCheckpointListenerIsReadOnly(listener, i);
        g_ptr_array_add(gateway->ports, port);
    }
    virCheckpointGatewayUpdatePorts(gateway);
    return gateway;
}

void
virCheckpointGatewayStopAccepting(virCheckpointGateway *gateway)
{
    gateway->stopped = TRUE;
    if (gateway->pause) {
        g_source_destroy(gateway->pause);
        g_clear_pointer(&gateway->pause, g_source_unref);
    }
    virCheckpointGatewayUpdatePorts(gateway);
}

void
virCheckpointGatewayForeach(virCheckpointGateway *gateway,
                            void (*func)(virCheckpointClient *client, gpointer data),
                            gpointer data)
{
    g_autoptr(GPtrArray) clients =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointClientUnref);
    guint i;

    /* @func may end sessions: on a copy. */
    for (i = 0; i < gateway->clients->len; i++)
        g_ptr_array_add(clients,
                        virCheckpointClientRef(g_ptr_array_index(gateway->clients, i)));
    for (i = 0; i < clients->len; i++)
        func(g_ptr_array_index(clients, i), data);
}

static void
virCheckpointGatewayDrainOne(virCheckpointClient *client, gpointer data)
{
    virCheckpointClientDrain(client);
}

void
virCheckpointGatewayDrain(virCheckpointGateway *gateway)
{
    virCheckpointGatewayForeach(gateway, virCheckpointGatewayDrainOne, NULL);
}

gboolean
virCheckpointGatewayIsBusy(virCheckpointGateway *gateway)
{
    guint i;

    for (i = 0; i < gateway->clients->len; i++) {
        if (virCheckpointClientIsBusy(g_ptr_array_index(gateway->clients, i)))
            return TRUE;
    }
    return FALSE;
}

static void
virCheckpointGatewayCloseOne(virCheckpointClient *client, gpointer data)
{
    virCheckpointClientClose(client);
}

void
virCheckpointGatewayCloseClients(virCheckpointGateway *gateway)
{
    virCheckpointGatewayForeach(gateway, virCheckpointGatewayCloseOne, NULL);
}

void
virCheckpointGatewayFree(virCheckpointGateway *gateway)
{
    if (!gateway)
        return;

    g_assert(gateway->stopped);
    g_assert(gateway->clients->len == 0);
    virCheckpointGatewayUnref(gateway);
}

guint
virCheckpointGatewayCountClients(const virCheckpointGateway *gateway)
{
    return gateway->clients->len + gateway->connecting;
}
