/*
 * checkpoint_identity.h: connecting as somebody else
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_IDENTITY_H
#define VIR_CHECKPOINT_IDENTITY_H

#include <glib.h>
#include <sys/types.h>

/** Who is at the other end of a socket, as of its connect(). */
typedef struct virCheckpointIdentity {
    pid_t pid;
    uid_t uid;
    gid_t gid;
    GArray *groups; /* gid_t, supplementary */
} virCheckpointIdentity;

/** Returns: (transfer full): the peer of @fd.  Source: SO_PEERCRED, SO_PEERGROUPS. */
virCheckpointIdentity *
virCheckpointIdentityOfPeer(int fd, GError **error);
void
virCheckpointIdentityFree(virCheckpointIdentity *identity);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointIdentity, virCheckpointIdentityFree)

/**
 * virCheckpointIdentityConnect:
 * @identity: whom the listener at @path is to see; ignored unless we are root
 *
 * Changes the effective ids of the calling thread for good: the thread must be a fresh
 * one that ends after the call.  Blocks up to half a minute while the listener's queue
 * is full.
 *
 * Returns: a connected non-blocking socket, or -1 with VIR_ERR_SYSTEM_ERROR and the
 * text of libvirt's own client library.
 */
int
virCheckpointIdentityConnect(const virCheckpointIdentity *identity,
                             const gchar *path,
                             GError **error);

#endif
