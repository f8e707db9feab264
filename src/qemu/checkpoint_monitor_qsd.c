/*
 * checkpoint_monitor_qsd.c: a qemu-storage-daemon of our own as a QMP peer
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: what must be done to qcow2 files without a guest (merging sidecars) is done
 * by a storage daemon that lives for one operation.  It gets one end of a socket pair
 * as its monitor, so there is no path to protect and nothing to clean up; it is killed
 * with the thread that started it (PR_SET_PDEATHSIG), and that thread is the one that
 * uses it. Nothing it has open matters after a crash: it only ever writes to files
 * ending in .tmp. QEMU 7.2's storage daemon has no add-fd: files are opened by path
 * here.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_monitor.h"

/** Longest wait for one answer: a merge reads whole bitmaps, never data. */
#define ANSWER_TIMEOUT_MS (120 * 1000)
/** Longest line that is taken: query-named-block-nodes with many bitmaps is far below.
 */
#define ANSWER_MAX_BYTES (64u * 1024 * 1024)

typedef struct virCheckpointStorageDaemon {
    GPid pid;
    int fd;
    GString *input; /* received, not yet consumed */
} virCheckpointStorageDaemon;

static void
virCheckpointStorageDaemonFree(gpointer peer)
{
    virCheckpointStorageDaemon *daemon = peer;
    int status;

    if (daemon->fd >= 0)
        close(daemon->fd);
    if (daemon->pid > 0) {
        kill(daemon->pid, SIGTERM);
        while (waitpid(daemon->pid, &status, 0) < 0 && errno == EINTR)
            ;
        g_spawn_close_pid(daemon->pid);
    }
    g_string_free(daemon->input, TRUE);
    g_free(daemon);
}

/* Receives more; FALSE when the peer is gone or silent for too long. */
static gboolean
virCheckpointStorageDaemonReceive(virCheckpointStorageDaemon *daemon, GError **error)
{
    struct pollfd wait = {.fd = daemon->fd, .events = POLLIN};
    gchar buffer[16384];
    gssize got = -1;
    int ready;

    do
        ready = poll(&wait, 1, ANSWER_TIMEOUT_MS);
    while (ready < 0 && errno == EINTR);
    if (ready > 0) {
        do
            got = recv(daemon->fd, buffer, sizeof(buffer), 0);
        while (got < 0 && errno == EINTR);
    }
    if (got <= 0 || daemon->input->len > ANSWER_MAX_BYTES) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                    "qemu-storage-daemon %s",
                    ready == 0 ? "does not answer" : "is gone");
        return FALSE;
    }
    g_string_append_len(daemon->input, buffer, got);
    return TRUE;
}

/* The next line that is an answer or the greeting: events are skipped. */
static gchar *
virCheckpointStorageDaemonLine(virCheckpointStorageDaemon *daemon, GError **error)
{
    for (;;) {
        gchar *end = strchr(daemon->input->str, '\n');
        g_autofree gchar *line = NULL;
        g_autoptr(virCheckpointJson) value = NULL;

        if (!end) {
            if (!virCheckpointStorageDaemonReceive(daemon, error))
                return NULL;
            continue;
        }
        line = g_strndup(daemon->input->str, (gsize)(end - daemon->input->str));
        g_string_erase(daemon->input, 0, end - daemon->input->str + 1);
        value = virCheckpointJsonParse(line, -1, NULL);
        if (!virCheckpointJsonGet(value, "event"))
            return g_steal_pointer(&line);
    }
}

static gchar *
virCheckpointStorageDaemonRun(gpointer peer, const gchar *command, GError **error)
{
    virCheckpointStorageDaemon *daemon = peer;
    g_autofree gchar *line = g_strconcat(command, "\n", NULL);
    const gchar *at = line;
    gsize left = strlen(line);

    while (left > 0) {
        gssize sent = send(daemon->fd, at, left, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                        "qemu-storage-daemon is gone: %s", g_strerror(errno));
            return NULL;
        }
        at += sent;
        left -= (gsize)sent;
    }
    return virCheckpointStorageDaemonLine(daemon, error);
}

/* Between fork and exec: async-signal-safe calls only. */
static void
virCheckpointStorageDaemonChild(gpointer data)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fcntl(GPOINTER_TO_INT(data), F_SETFD, 0);
}

static gboolean
virCheckpointStorageDaemonSpawn(virCheckpointStorageDaemon *daemon,
                                const gchar *const *argv,
                                int theirs,
                                GError **error)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    g_autofree gchar *chardev = g_strdup_printf("socket,id=monitor,fd=%d", theirs);
    g_autoptr(GError) failed = NULL;

    g_ptr_array_add(args, (gpointer) "qemu-storage-daemon");
    for (; argv && *argv; argv++)
        g_ptr_array_add(args, (gpointer)*argv);
    g_ptr_array_add(args, (gpointer) "--chardev");
    g_ptr_array_add(args, chardev);
    g_ptr_array_add(args, (gpointer) "--monitor");
    g_ptr_array_add(args, (gpointer) "chardev=monitor");
    g_ptr_array_add(args, NULL);
    if (!g_spawn_async(NULL, (gchar **)args->pdata, NULL,
                       G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD |
                           G_SPAWN_STDOUT_TO_DEV_NULL,
                       virCheckpointStorageDaemonChild, GINT_TO_POINTER(theirs),
                       &daemon->pid, &failed)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "cannot start qemu-storage-daemon: %s", failed->message);
        return FALSE;
    }
    return TRUE;
}

virCheckpointMonitor *
virCheckpointMonitorNewStorageDaemon(const gchar *const *argv, GError **error)
{
    static const virCheckpointMonitorOps ops = {
        .run = virCheckpointStorageDaemonRun,
        .free = virCheckpointStorageDaemonFree,
    };
    VIR_CHECKPOINT_AUTOFD int theirs = -1;
    g_autoptr(virCheckpointMonitor) monitor = NULL;
    g_autoptr(virCheckpointJson) reply = NULL;
    g_autofree gchar *greeting = NULL;
    virCheckpointStorageDaemon *daemon;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                    "cannot make a socket pair: %s", g_strerror(errno));
        return NULL;
    }
    theirs = pair[1];
    daemon = g_new0(virCheckpointStorageDaemon, 1);
    daemon->fd = pair[0];
    daemon->input = g_string_new(NULL);
    monitor = virCheckpointMonitorNew(&ops, daemon, "qemu-storage-daemon");
    if (!virCheckpointStorageDaemonSpawn(daemon, argv, theirs, error))
        return NULL;
    virCheckpointFdCleanup(&theirs);
    if (!(greeting = virCheckpointStorageDaemonLine(daemon, error)))
        return NULL;
    if (!(reply = virCheckpointMonitorRun(monitor, "qmp_capabilities", NULL, error)))
        return NULL;
    return g_steal_pointer(&monitor);
}
