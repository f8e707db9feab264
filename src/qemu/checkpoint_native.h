/*
 * checkpoint_native.h: QEMU's own bitmap mirror, where there is one
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_NATIVE_H
#define VIR_CHECKPOINT_NATIVE_H

#include "checkpoint_nodes.h"

/** What blockdev-mirror can do with a bitmap. */
typedef enum {
    VIR_CHECKPOINT_NATIVE_NONE,    /* nothing, as all of stock QEMU */
    VIR_CHECKPOINT_NATIVE_MODES,   /* bitmap and bitmap-mode: downstream packages */
    VIR_CHECKPOINT_NATIVE_WORKING, /* bitmap alone, worked off: the posted series */
    VIR_CHECKPOINT_NATIVE_LAST
} virCheckpointNativeDialect;

const gchar *
virCheckpointNativeDialectToString(virCheckpointNativeDialect dialect);

/**
 * virCheckpointNativeDetect:
 * @schema: what query-qmp-schema returns
 *
 * Judges by the members of blockdev-mirror alone: the sync enum has "bitmap" in stock
 * QEMU, too.  Any other shape than the two that are known is NONE.
 */
virCheckpointNativeDialect
virCheckpointNativeDetect(const virCheckpointJson *schema);

/** Asks QEMU: a reply of 190 KB, for which libvirt takes a quarter of a second. */
gboolean
virCheckpointNativeQuery(virCheckpointMonitor *monitor,
                         virCheckpointNativeDialect *dialect,
                         GError **error);

/**
 * virCheckpointNativeIdentity:
 * @xml: of the running domain
 *
 * Asks QEMU for its version.
 *
 * Returns: (transfer full) (nullable): which QEMU it is: two that have the same text
 * can do the same; NULL where nobody can tell.
 */
gchar *
virCheckpointNativeIdentity(virCheckpointMonitor *monitor, const gchar *xml);

/** One job.  All borrowed. */
typedef struct virCheckpointNativePlan {
    virCheckpointNativeDialect dialect;
    const gchar *job;
    const gchar *source; /* node-name: the disk's top format node */
    const gchar *target; /* node-name */
    const gchar *filter; /* node-name of the filter that the job puts on the source */
    const gchar *bitmap; /* on the source */
    guint64 speedBytes;  /* 0: unlimited */
    guint64 bufSize;     /* 0: QEMU's default */
    gboolean synchronous;
} virCheckpointNativePlan;

/** Returns: (transfer full): the arguments of blockdev-mirror. */
virCheckpointJson *
virCheckpointNativeArguments(const virCheckpointNativePlan *plan);

/**
 * virCheckpointNativeFits:
 * Whether the nodes are what the dialect takes: what is refused by one version and
 * accepted by another, or kills QEMU, is not tried.
 *
 * Returns: (transfer full) (nullable): NULL if they are; else why not.
 */
gchar *
virCheckpointNativeFits(const virCheckpointNativePlan *plan,
                        const virCheckpointGraph *graph);

typedef enum {
    VIR_CHECKPOINT_NATIVE_STARTED,
    VIR_CHECKPOINT_NATIVE_UNFIT,   /* not tried */
    VIR_CHECKPOINT_NATIVE_REFUSED, /* tried, nothing happened: QEMU lied */
    VIR_CHECKPOINT_NATIVE_FAILED,  /* nobody knows: error is set */
} virCheckpointNativeAnswer;

/**
 * virCheckpointNativeStart:
 * @why: (out) (transfer full): of UNFIT and REFUSED
 *
 * Looks at the nodes, then starts the job.
 */
virCheckpointNativeAnswer
virCheckpointNativeStart(const virCheckpointNativePlan *plan,
                         virCheckpointMonitor *monitor,
                         gchar **why,
                         GError **error);

#endif
