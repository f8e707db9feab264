/*
 * checkpoint_nodes.h: what QEMU's block graph and bitmaps look like now
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_NODES_H
#define VIR_CHECKPOINT_NODES_H

#include "checkpoint_monitor.h"

/** One dirty bitmap as query-named-block-nodes shows it.  Anonymous ones are left out.
 */
typedef struct virCheckpointBitmapInfo {
    gchar *name;
    guint64 countBytes;
    guint64 granularity;
    gboolean recording;
    gboolean busy;
    gboolean persistent;
    gboolean inconsistent;
} virCheckpointBitmapInfo;

/** One named block node. */
typedef struct virCheckpointNode {
    gchar *name;         /* node-name */
    gchar *driver;       /* "qcow2", "file", "copy-on-read", ... */
    gchar *file;         /* file name QEMU shows: a path, or json: */
    guint64 sizeBytes;   /* virtual size */
    guint64 clusterSize; /* 0 = unknown */
    gboolean readOnly;
    gboolean compatOld; /* qcow2 version 2: no persistent bitmaps */
    gchar *backing;     /* node-name of the backing node, or NULL */
    gchar *child;       /* node-name of the 'file' child, or NULL */
    GPtrArray *bitmaps; /* virCheckpointBitmapInfo* */
} virCheckpointNode;

/** A snapshot of the graph. Plain data, borrowed look-ups. */
typedef struct virCheckpointGraph virCheckpointGraph;

/** One query-named-block-nodes, query-block and x-debug-query-block-graph. */
virCheckpointGraph *
virCheckpointGraphQuery(virCheckpointMonitor *monitor, GError **error);
/** The nodes that devices look at, by one query-block, if none has a layer below it;
 * else as virCheckpointGraphQuery(). */
virCheckpointGraph *
virCheckpointGraphQueryDisks(virCheckpointMonitor *monitor, GError **error);
/** One query-named-block-nodes only: nodes by name with their bitmaps, no edges, no
 * devices. */
virCheckpointGraph *
virCheckpointGraphQueryNodes(virCheckpointMonitor *monitor, GError **error);
void
virCheckpointGraphFree(virCheckpointGraph *graph);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointGraph, virCheckpointGraphFree)

/** By node-name, or NULL. */
const virCheckpointNode *
virCheckpointGraphNode(const virCheckpointGraph *graph, const gchar *name);
/** The format node (qcow2, raw, ...) at the top of the device with alias @alias
 * ("virtio-disk0"), filters skipped; NULL if there is none.  A storage daemon has no
 * devices: there it is the node of that name. */
const virCheckpointNode *
virCheckpointGraphTop(const virCheckpointGraph *graph, const gchar *alias);
/** The next layer below, filters skipped; NULL at the bottom. */
const virCheckpointNode *
virCheckpointGraphBacking(const virCheckpointGraph *graph,
                          const virCheckpointNode *node);
/** The layer at or below @top whose image is the file @path, or NULL. */
const virCheckpointNode *
virCheckpointGraphLayer(const virCheckpointGraph *graph,
                        const virCheckpointNode *top,
                        const gchar *path);
/** All nodes (virCheckpointNode*, borrowed). */
const GPtrArray *
virCheckpointGraphNodes(const virCheckpointGraph *graph);
/** The bitmap @name on @node, or NULL. */
const virCheckpointBitmapInfo *
virCheckpointNodeBitmap(const virCheckpointNode *node, const gchar *name);
/** Bitmap @name on node @node was removed: @graph shows it no longer. */
void
virCheckpointGraphForget(virCheckpointGraph *graph,
                         const gchar *node,
                         const gchar *name);

#endif
