/*
 * checkpoint_identity.c: connecting as somebody else
 *
 * The stock daemon judges a client by the credentials that the kernel notes at
 * connect().  So a thread takes the client's effective ids and connects: to the daemon,
 * to polkit and to the socket's mode bits that connection is the client's, and we need
 * no access rules of our own.
 *
 * Order: supplementary groups, then gid, then uid; root's groups left on would open a
 * 0660 root:root socket.  The raw system calls act on the calling thread, glibc's
 * wrappers would change all threads.  Only the effective ids change: with root as real
 * and saved uid left in place, the client cannot send signals to the thread.  The
 * kernel drops the effective capabilities with the uid, so mode bits count.  The pid
 * stays ours: what polkit derives from a pid (the session, its password agent) does not
 * reach the client.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"

#define CONNECT_TIMEOUT_SEC 30

void
virCheckpointIdentityFree(virCheckpointIdentity *identity)
{
    if (!identity)
        return;

    g_array_unref(identity->groups);
    g_free(identity);
}

static gboolean
virCheckpointIdentityReadGroups(virCheckpointIdentity *identity, int fd)
{
    socklen_t size = 64 * sizeof(gid_t);

    for (;;) {
        socklen_t room = size;

        g_array_set_size(identity->groups, size / sizeof(gid_t));
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, identity->groups->data, &size) ==
            0)
            break;
        /* ERANGE: the kernel has put the size it needs in @size. */
        if (errno != ERANGE || size <= room)
            return FALSE;
    }
    g_array_set_size(identity->groups, size / sizeof(gid_t));
    return TRUE;
}

virCheckpointIdentity *
virCheckpointIdentityOfPeer(int fd, GError **error)
{
    g_autoptr(virCheckpointIdentity) identity = g_new0(virCheckpointIdentity, 1);
    struct ucred cred;
    socklen_t size = sizeof(cred);

    identity->groups = g_array_new(FALSE, FALSE, sizeof(gid_t));
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0 ||
        !virCheckpointIdentityReadGroups(identity, fd)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                    "Failed to get client socket identity: %s", g_strerror(errno));
        return NULL;
    }
    identity->pid = cred.pid;
    identity->uid = cred.uid;
    identity->gid = cred.gid;
    return g_steal_pointer(&identity);
}

static gboolean
virCheckpointIdentityTake(const virCheckpointIdentity *identity, GError **error)
{
    gsize count = identity->groups->len;

    if (syscall(SYS_setgroups, count, count ? identity->groups->data : NULL) == 0 &&
        syscall(SYS_setresgid, (gid_t)-1, identity->gid, (gid_t)-1) == 0 &&
        syscall(SYS_setresuid, (uid_t)-1, identity->uid, (uid_t)-1) == 0)
        return TRUE;

    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                "cannot act as user %u: %s", (guint)identity->uid, g_strerror(errno));
    return FALSE;
}

int
virCheckpointIdentityConnect(const virCheckpointIdentity *identity,
                             const gchar *path,
                             GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = CONNECT_TIMEOUT_SEC};
    struct timeval none = {0};

    if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) >=
        sizeof(address.sun_path)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                    "Path %s too long for unix socket", path);
        return -1;
    }
    if (geteuid() == 0 && !virCheckpointIdentityTake(identity, error))
        return -1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none)) < 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                    "Failed to connect socket to '%s': %s", path, g_strerror(errno));
        return -1;
    }
    return virCheckpointFdSteal(&fd);
}
