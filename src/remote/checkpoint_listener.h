/*
 * checkpoint_listener.h: the sockets that clients connect to
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_LISTENER_H
#define VIR_CHECKPOINT_LISTENER_H

#include <glib.h>

/** A read-write and a read-only listening socket. */
typedef struct virCheckpointListener virCheckpointListener;

/**
 * virCheckpointListenerNew:
 * @path: of the read-write socket; the read-only one is @path with "-ro" appended
 * @mode: of both socket files
 *
 * A socket file that nobody answers at is replaced; one that somebody answers at is an
 * error (VIR_ERR_OPERATION_FAILED), as is a second instance that starts at the same
 * moment.
 */
virCheckpointListener *
virCheckpointListenerNew(const gchar *path, guint mode, GError **error);

/**
 * virCheckpointListenerNewFromSystemd:
 * @listener: (out) (transfer full) (nullable): NULL when nothing was passed
 *
 * Takes the sockets that systemd passed to this process.  Those named "ro" (or else
 * with a path that ends in "-ro") are read-only.  Their files are systemd's.
 * Source: sd_listen_fds(3).
 */
gboolean
virCheckpointListenerNewFromSystemd(virCheckpointListener **listener, GError **error);

/** Removes the socket files made here, so that no new client comes; once is enough. */
void
virCheckpointListenerRemoveFiles(virCheckpointListener *listener);
/** Closes the sockets, in this process only; the files stay. */
void
virCheckpointListenerFree(virCheckpointListener *listener);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointListener, virCheckpointListenerFree)

/** Descriptors, owned by the listener; index below Count. */
guint
virCheckpointListenerCount(const virCheckpointListener *listener);
int
virCheckpointListenerGetFd(const virCheckpointListener *listener, guint index);
gboolean
virCheckpointListenerIsReadOnly(const virCheckpointListener *listener, guint index);
/** The path a socket is bound to; borrowed. */
const gchar *
virCheckpointListenerGetPath(const virCheckpointListener *listener, guint index);

/** TRUE if @path names one of these sockets, by whatever name. */
gboolean
virCheckpointListenerHasPath(const virCheckpointListener *listener, const gchar *path);

#endif
