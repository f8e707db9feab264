/*
 * checkpoint_mirror_delta.c: targets that are to hold the difference only
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: an empty qcow2 that takes an increment is a delta: put on a copy of the disk
 * as of the base checkpoint (qemu-img rebase -u) it gives the disk of its moment.  That
 * is right only if every cluster that it gets is written whole, for what is missing in
 * a cluster reads as zeros and not as what the copy has.  The bulk pass writes whole
 * clusters of its target.  Libvirt's mirror writes whole granules, 64 KiB unless it is
 * told, and with synchronous writes whatever the guest writes.
 *
 * Whether somebody wants a delta cannot be seen, but an empty target can: its first
 * level table has no entry.
 */

#include "config.h"

#include <string.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_mirrorpriv.h"

/* The header's fields (docs/interop/qcow2.txt of QEMU), big-endian. */
#define VIR_CHECKPOINT_QCOW2_CLUSTER_BITS 20
#define VIR_CHECKPOINT_QCOW2_L1_SIZE 36
#define VIR_CHECKPOINT_QCOW2_L1_OFFSET 40
#define VIR_CHECKPOINT_QCOW2_HEADER 72
#define VIR_CHECKPOINT_QCOW2_L1_ENTRIES 512

static guint32
virCheckpointMirrorDeltaUint32(const guchar *header, gsize at)
{
    guint32 number;

    memcpy(&number, header + at, sizeof(number));
    return GUINT32_FROM_BE(number);
}

static gboolean
virCheckpointMirrorDeltaIsEmpty(int fd, guint32 entries, guint64 offset)
{
    guint64 table[VIR_CHECKPOINT_QCOW2_L1_ENTRIES];
    gsize i;

    while (entries > 0) {
        gsize count = MIN(entries, G_N_ELEMENTS(table));
        gsize bytes = count * sizeof(table[0]);

        if (pread(fd, table, bytes, (off_t)offset) != (ssize_t)bytes)
            return FALSE;
        for (i = 0; i < count; i++) {
            if (table[i] != 0)
                return FALSE;
        }
        entries -= (guint32)count;
        offset += bytes;
    }
    return TRUE;
}

/* *clusterBytes: of the empty qcow2 that @fd is, else 0. */
static void
virCheckpointMirrorDeltaRead(int fd, guint64 *clusterBytes)
{
    guchar header[VIR_CHECKPOINT_QCOW2_HEADER];
    guint64 offset;
    guint32 bits;

    *clusterBytes = 0;
    if (pread(fd, header, sizeof(header), 0) != sizeof(header))
        return;
    bits = virCheckpointMirrorDeltaUint32(header, VIR_CHECKPOINT_QCOW2_CLUSTER_BITS);
    memcpy(&offset, header + VIR_CHECKPOINT_QCOW2_L1_OFFSET, sizeof(offset));
    if (bits < 9 || bits > 21 ||
        !virCheckpointMirrorDeltaIsEmpty(
            fd, virCheckpointMirrorDeltaUint32(header, VIR_CHECKPOINT_QCOW2_L1_SIZE),
            GUINT64_FROM_BE(offset)))
        return;
    *clusterBytes = G_GUINT64_CONSTANT(1) << bits;
}

gboolean
virCheckpointMirrorCheckDelta(virCheckpointJobRecord *job,
                              int fd,
                              guint64 bitmapBytes,
                              GError **error)
{
    guint64 clusterBytes = 0;

    if (fd < 0 || job->destCreated || job->full ||
        !g_str_equal(job->destFormat, "qcow2"))
        return TRUE;
    virCheckpointMirrorDeltaRead(fd, &clusterBytes);
    if (clusterBytes == 0)
        return TRUE;
    /* QEMU's own bitmap mirror writes what its bitmap says and no more. */
    if (clusterBytes > bitmapBytes)
        job->native = FALSE;
    if (job->finish)
        return TRUE;
    if (job->flags & VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "destination '%s' is empty and will hold the difference only: that"
                    " takes whole clusters, which flag"
                    " VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES does not write",
                    job->destPath);
        return FALSE;
    }
    if (job->granularity && job->granularity < clusterBytes) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "destination '%s' is empty and will hold the difference only: that"
                    " takes a granularity of its cluster size, %" G_GUINT64_FORMAT
                    ", or more",
                    job->destPath, clusterBytes);
        return FALSE;
    }
    /* QEMU's own choice ends at 64 KiB. */
    if (!job->granularity && clusterBytes > 65536)
        job->granularity = (guint)clusterBytes;
    return TRUE;
}
