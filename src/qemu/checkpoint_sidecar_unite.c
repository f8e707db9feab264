/*
 * checkpoint_sidecar_unite.c: one sidecar with the bits of many
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a node without data (null-co) in a storage daemon takes the OR of all, and is
 * written out as a new sidecar like any other.  No guest has a part in it, and the
 * daemon is asked over a socket of its own, by paths: some ten times faster than a
 * guest's QEMU, which takes each file as a descriptor, through libvirt.
 */

#include "config.h"

#include "checkpoint_sidecarpriv.h"

#define WORK_NODE "virtcheckpoint-compact"
#define WORK_BITMAP "work"

/* The storage daemon's only node of its own: the size of the disk, no data. */
static virCheckpointMonitor *
virCheckpointSidecarUniteDaemon(guint64 sizeBytes, GError **error)
{
    g_autofree gchar *blockdev =
        g_strdup_printf("driver=null-co,node-name=" WORK_NODE ",size=%" G_GUINT64_FORMAT
                        ",read-zeroes=on",
                        sizeBytes);
    const gchar *const argv[] = {"--blockdev", blockdev, NULL};

    return virCheckpointMonitorNewStorageDaemon(argv, NULL, error);
}

static guint64
virCheckpointSidecarUniteFinest(GArray *infos)
{
    guint64 finest = G_MAXUINT64;
    guint i;

    for (i = 0; i < infos->len; i++)
        finest =
            MIN(finest, g_array_index(infos, virCheckpointSidecarInfo, i).granularity);
    return finest;
}

gboolean
virCheckpointSidecarUnite(virCheckpointStoreDomain *store,
                          GPtrArray *sidecars,
                          GArray *infos,
                          guint64 sizeBytes,
                          const gchar *fileName,
                          GError **error)
{
    virCheckpointBitmapRef work = {WORK_NODE, WORK_BITMAP};
    guint64 granularity = virCheckpointSidecarUniteFinest(infos);
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(virCheckpointMonitor) monitor =
        virCheckpointSidecarUniteDaemon(sizeBytes, error);

    if (!monitor)
        return FALSE;
    virCheckpointTxnAdd(txn, WORK_NODE, WORK_BITMAP, granularity,
                        VIR_CHECKPOINT_BITMAP_DISABLED);
    g_array_append_val(sources, work);
    return virCheckpointTxnRun(txn, monitor, error) &&
           virCheckpointSidecarLoadRead(store, monitor, sidecars, infos, &work,
                                        sizeBytes, error) &&
           virCheckpointSidecarWrite(store, monitor, sizeBytes, granularity, sources,
                                     fileName, error);
}
