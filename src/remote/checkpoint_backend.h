/*
 * checkpoint_backend.h: where the stock daemon is
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_BACKEND_H
#define VIR_CHECKPOINT_BACKEND_H

#include <glib.h>

/** The folder of libvirt's sockets, of root or of this user; (transfer full). */
gchar *
virCheckpointBackendSocketDir(void);

/**
 * virCheckpointBackendFind:
 * @own: path of our own read-write socket, never returned
 *
 * Returns: (transfer full): the socket of virtqemud if there is one that is not stale,
 * else of libvirtd; if neither is there, that of the daemon which is installed.
 */
gchar *
virCheckpointBackendFind(const gchar *own);

/** The URI that leads to the backend at @path and to nobody else; (transfer full). */
gchar *
virCheckpointBackendUri(const gchar *path);

/** TRUE if both paths lead to the same file, through whatever links in the folders. */
gboolean
virCheckpointBackendSamePath(const gchar *one, const gchar *other);

/**
 * TRUE for a socket file that nobody listens at: only "connection refused" proves it.
 * Does not block.
 */
gboolean
virCheckpointBackendIsStale(const gchar *path);

/**
 * virCheckpointBackendStartSession:
 * @path: the backend's socket, in this user's socket folder
 *
 * Has libvirt's client library start the user's daemon, as it does for any client of a
 * session.  Thread: any but main; blocks.
 */
gboolean
virCheckpointBackendStartSession(const gchar *path, GError **error);

#endif
