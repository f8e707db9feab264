/*
 * checkpoint_listener.c: the sockets that clients connect to
 *
 * Libvirt's clients go by the existence of a socket file: one that stays behind makes
 * every client fail.  So files are removed on stop, and a start replaces what a killed
 * instance left.  Whether a file is stale is asked by connecting to it, under a lock
 * file beside the socket: two instances that start at once must not each take the
 * other's new socket for a stale one.  The lock is held as long as we listen.
 *
 * Sockets passed by systemd (or by our own supervisor) stay theirs: the files are not
 * removed, and clients that connect while nobody accepts wait in the backlog.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#define G_LOG_DOMAIN "virtcheckpoint"

#include "checkpoint_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "checkpoint_backend.h"
#include "checkpoint_error.h"
#include "checkpoint_file.h"

#define BACKLOG 1000
/** For the lock of a daemon that ended just now. */
#define PATIENCE_MS 1000
#define SYSTEMD_FIRST_FD 3
#define SYSTEMD_MAX_FDS 64

typedef struct virCheckpointListenerSocket {
    int fd;
    gchar *path;
    gboolean readOnly;
    struct stat file; /* ours only: the file we made */
} virCheckpointListenerSocket;

struct virCheckpointListener {
    GPtrArray *sockets;
    gboolean ownFiles;
    gchar *lockPath;
    int lockFd;
};

static void
virCheckpointListenerSocketFree(virCheckpointListenerSocket *socket)
{
    if (socket->fd >= 0)
        close(socket->fd);
    g_free(socket->path);
    g_free(socket);
}

static virCheckpointListener *
virCheckpointListenerAlloc(void)
{
    virCheckpointListener *listener = g_new0(virCheckpointListener, 1);

    listener->lockFd = -1;
    listener->sockets =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointListenerSocketFree);
    return listener;
}

static void
virCheckpointListenerAdd(virCheckpointListener *listener,
                         int fd,
                         const gchar *path,
                         gboolean readOnly)
{
    virCheckpointListenerSocket *made = g_new0(virCheckpointListenerSocket, 1);

    made->fd = fd;
    made->path = g_strdup(path);
    made->readOnly = readOnly;
    if (stat(path, &made->file) < 0)
        memset(&made->file, 0, sizeof(made->file));
    g_ptr_array_add(listener->sockets, made);
}

static void
virCheckpointListenerRemoveFile(const virCheckpointListenerSocket *made)
{
    struct stat now;

    if (lstat(made->path, &now) == 0 && now.st_dev == made->file.st_dev &&
        now.st_ino == made->file.st_ino && unlink(made->path) < 0)
        g_warning("cannot remove socket '%s': %s", made->path, g_strerror(errno));
}

void
virCheckpointListenerRemoveFiles(virCheckpointListener *listener)
{
    guint i;

    for (i = 0; listener->ownFiles && i < listener->sockets->len; i++)
        virCheckpointListenerRemoveFile(g_ptr_array_index(listener->sockets, i));
    if (listener->lockPath)
        unlink(listener->lockPath);
    listener->ownFiles = FALSE;
    g_clear_pointer(&listener->lockPath, g_free);
}

void
virCheckpointListenerFree(virCheckpointListener *listener)
{
    if (!listener)
        return;

    g_ptr_array_unref(listener->sockets);
    if (listener->lockFd >= 0)
        close(listener->lockFd);
    g_free(listener->lockPath);
    g_free(listener);
}

/* Making our own. */

/* The lock file is removed by its holder, so a lock counts only while the name still
 * leads to the locked file. */
static gboolean
virCheckpointListenerLock(virCheckpointListener *listener,
                          const gchar *path,
                          GError **error)
{
    g_autofree gchar *lockPath = g_strconcat(path, ".lock", NULL);
    struct stat locked;
    struct stat named;

    for (;;) {
        VIR_CHECKPOINT_AUTOFD int fd =
            virCheckpointFileLockSoon(lockPath, PATIENCE_MS, error);

        if (fd < 0) {
            g_prefix_error(error,
                           g_file_test(path, G_FILE_TEST_EXISTS)
                               ? "a daemon is already running at socket '%s': "
                               : "cannot listen at socket '%s': ",
                           path);
            return FALSE;
        }
        if (fstat(fd, &locked) == 0 && stat(lockPath, &named) == 0 &&
            locked.st_ino == named.st_ino && locked.st_dev == named.st_dev) {
            listener->lockFd = virCheckpointFdSteal(&fd);
            listener->lockPath = g_steal_pointer(&lockPath);
            return TRUE;
        }
    }
}

static gboolean
virCheckpointListenerAddress(struct sockaddr_un *address,
                             const gchar *path,
                             GError **error)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    if (g_strlcpy(address->sun_path, path, sizeof(address->sun_path)) <
        sizeof(address->sun_path))
        return TRUE;

    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                "Path %s too long for unix socket", path);
    return FALSE;
}

static gboolean
virCheckpointListenerBind(virCheckpointListener *listener,
                          const gchar *path,
                          guint mode,
                          gboolean readOnly,
                          GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address;
    mode_t mask;
    int rc = -1;

    if (!virCheckpointListenerAddress(&address, path, error))
        return FALSE;

    mask = umask(~mode & 0777);
    rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
    if (rc < 0 && errno == EADDRINUSE) {
        if (virCheckpointBackendIsStale(path)) {
            g_info("replacing socket '%s' that nobody answers at", path);
            unlink(path);
            rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
        } else {
            errno = EADDRINUSE;
        }
    }
    umask(mask);

    if (rc < 0 || listen(fd, BACKLOG) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    errno == EADDRINUSE ? "socket '%s' is in use, a daemon is already "
                                          "running there: %s"
                                        : "Failed to bind socket to '%s': %s",
                    path, g_strerror(errno));
        return FALSE;
    }
    virCheckpointListenerAdd(listener, virCheckpointFdSteal(&fd), path, readOnly);
    return TRUE;
}

virCheckpointListener *
virCheckpointListenerNew(const gchar *path, guint mode, GError **error)
{
    g_autoptr(virCheckpointListener) listener = virCheckpointListenerAlloc();
    g_autofree gchar *readOnlyPath = g_strconcat(path, "-ro", NULL);

    listener->ownFiles = TRUE;
    if (virCheckpointListenerLock(listener, path, error) &&
        virCheckpointListenerBind(listener, path, mode, FALSE, error) &&
        virCheckpointListenerBind(listener, readOnlyPath, mode, TRUE, error))
        return g_steal_pointer(&listener);

    virCheckpointListenerRemoveFiles(listener);
    return NULL;
}

/* Taking systemd's. */

static gboolean
virCheckpointListenerAdopt(virCheckpointListener *listener,
                           int fd,
                           const gchar *name,
                           GError **error)
{
    struct sockaddr_un address = {0};
    socklen_t size = sizeof(address) - 1;
    int listening = 0;
    socklen_t length = sizeof(listening);
    gboolean readOnly = FALSE;

    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0 ||
        address.sun_family != AF_UNIX || address.sun_path[0] == '\0' ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0 ||
        !listening || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                    "descriptor %d that systemd passed is no listening unix socket",
                    fd);
        return FALSE;
    }
    if (g_strcmp0(name, "ro") == 0)
        readOnly = TRUE;
    else if (g_strcmp0(name, "rw") != 0)
        readOnly = g_str_has_suffix(address.sun_path, "-ro");
    virCheckpointListenerAdd(listener, fd, address.sun_path, readOnly);
    return TRUE;
}

gboolean
virCheckpointListenerNewFromSystemd(virCheckpointListener **listener, GError **error)
{
    const gchar *forPid = g_getenv("LISTEN_PID");
    const gchar *names = g_getenv("LISTEN_FDNAMES");
    const gchar *countText = g_getenv("LISTEN_FDS");
    g_auto(GStrv) name = g_strsplit(names ? names : "", ":", -1);
    g_autoptr(virCheckpointListener) made = NULL;
    guint64 pid = 0;
    guint64 count = 0;
    guint i;

    *listener = NULL;
    if (!forPid || !countText ||
        !g_ascii_string_to_unsigned(forPid, 10, 1, G_MAXINT, &pid, NULL) ||
        pid != (guint64)getpid() ||
        !g_ascii_string_to_unsigned(countText, 10, 1, SYSTEMD_MAX_FDS, &count, NULL))
        return TRUE;

    made = virCheckpointListenerAlloc();
    for (i = 0; i < count; i++) {
        const gchar *its = i < g_strv_length(name) ? name[i] : NULL;

        if (!virCheckpointListenerAdopt(made, SYSTEMD_FIRST_FD + (int)i, its, error))
            return FALSE;
    }
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    g_unsetenv("LISTEN_FDNAMES");
    *listener = g_steal_pointer(&made);
    return TRUE;
}

guint
virCheckpointListenerCount(const virCheckpointListener *listener)
{
    return listener->sockets->len;
}

static const virCheckpointListenerSocket *
virCheckpointListenerAt(const virCheckpointListener *listener, guint index)
{
    return g_ptr_array_index(listener->sockets, index);
}

int
virCheckpointListenerGetFd(const virCheckpointListener *listener, guint index)
{
    return virCheckpointListenerAt(listener, index)->fd;
}

gboolean
virCheckpointListenerIsReadOnly(const virCheckpointListener *listener, guint index)
{
    return virCheckpointListenerAt(listener, index)->readOnly;
}

const gchar *
virCheckpointListenerGetPath(const virCheckpointListener *listener, guint index)
{
    return virCheckpointListenerAt(listener, index)->path;
}

gboolean
virCheckpointListenerHasPath(const virCheckpointListener *listener, const gchar *path)
{
    struct stat sb;
    gboolean there = stat(path, &sb) == 0;
    guint i;

    for (i = 0; i < listener->sockets->len; i++) {
        const virCheckpointListenerSocket *made = virCheckpointListenerAt(listener, i);

        if (g_str_equal(made->path, path) ||
            (there && sb.st_dev == made->file.st_dev && sb.st_ino == made->file.st_ino))
            return TRUE;
    }
    return FALSE;
}
