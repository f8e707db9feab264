/*
 * checkpoint_sidecarpriv.h: sidecar files as nodes of a QEMU
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_SIDECARPRIV_H
#define VIR_CHECKPOINT_SIDECARPRIV_H

#include "checkpoint_sidecar.h"

/** Some sidecar files that a QEMU opens and closes together. */
typedef struct virCheckpointSidecarNodes virCheckpointSidecarNodes;

/** @monitor: borrowed. */
virCheckpointSidecarNodes *
virCheckpointSidecarNodesNew(virCheckpointMonitor *monitor, gboolean readOnly);

/** Closes what is still open; failures are not told. */
void
virCheckpointSidecarNodesFree(virCheckpointSidecarNodes *nodes);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointSidecarNodes, virCheckpointSidecarNodesFree)

/**
 * virCheckpointSidecarNodesAdd:
 * @scratch: the file is removed with @nodes
 *
 * Hands @path over, to be opened with the others; its bitmap is the file's.
 */
gboolean
virCheckpointSidecarNodesAdd(virCheckpointSidecarNodes *nodes,
                             const gchar *path,
                             const gchar *bitmap,
                             gboolean scratch,
                             GError **error);

/** Opens all that were added, up to 8 by one command. */
gboolean
virCheckpointSidecarNodesOpen(virCheckpointSidecarNodes *nodes, GError **error);

/** Closes them, likewise, and takes the descriptors back; goes on after a failure
 * and reports the first. */
gboolean
virCheckpointSidecarNodesClose(virCheckpointSidecarNodes *nodes, GError **error);

guint
virCheckpointSidecarNodesCount(const virCheckpointSidecarNodes *nodes);

/** Node and bitmap of the @i-th file that was added; the names are borrowed. */
virCheckpointBitmapRef
virCheckpointSidecarNodesRef(const virCheckpointSidecarNodes *nodes, guint i);

/** As virCheckpointSidecarLoad(), in batches, of sidecars that were read already
 * (virCheckpointSidecarReadAll(): @infos), into bitmap @target of a node of @sizeBytes.
 */
gboolean
virCheckpointSidecarLoadRead(virCheckpointStoreDomain *store,
                             virCheckpointMonitor *monitor,
                             GPtrArray *sidecars,
                             GArray *infos,
                             const virCheckpointBitmapRef *target,
                             guint64 sizeBytes,
                             GError **error);

#endif
