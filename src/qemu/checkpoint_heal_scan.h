/*
 * checkpoint_heal_scan.h: in which blocks do two disks differ?
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_HEAL_SCAN_H
#define VIR_CHECKPOINT_HEAL_SCAN_H

#include "checkpoint_heal_map.h"

/** One NBD export on a Unix socket.  Borrowed. */
typedef struct virCheckpointScanExport {
    const gchar *socket;
    const gchar *name;
} virCheckpointScanExport;

/** A range that differs; ranges do not overlap. */
typedef struct virCheckpointRange {
    guint64 offset;
    guint64 length;
} virCheckpointRange;

/** Connections to two disks that are to be compared, and to a third that takes marks.
 */
typedef struct virCheckpointScan virCheckpointScan;

/**
 * virCheckpointScanOpen:
 * @disks: two exports of the same size; @marks: a writable one of that size
 * @maps: of the two disks, borrowed; both or none: what they say is plain is read
 * without the exports
 * @granule: power of two, 512 bytes or more: what is told is in whole ones
 *
 * Opens all connections that it will need: the sockets' files may go when it returns.
 */
virCheckpointScan *
virCheckpointScanOpen(const virCheckpointScanExport disks[2],
                      const virCheckpointScanExport *marks,
                      virCheckpointMap *const maps[2],
                      guint64 sizeBytes,
                      guint64 granule,
                      GError **error);
void
virCheckpointScanFree(virCheckpointScan *scan);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointScan, virCheckpointScanFree)

/**
 * virCheckpointScanRun:
 * @cancelled: atomic: the scan ends with VIR_ERR_OPERATION_ABORTED when it is not 0
 * @doneMib: how far it is, in MiB; atomic
 *
 * Reads both in pieces, several at a time; what both say is zero is not read.  Blocks;
 * uses threads of its own.
 *
 * Returns: (transfer full): GArray of virCheckpointRange, sorted, neighbours joined.
 */
GArray *
virCheckpointScanRun(virCheckpointScan *scan,
                     gint *cancelled,
                     gint *doneMib,
                     GError **error);

/**
 * virCheckpointScanMark:
 * Writes zeroes over @ranges of the third export: so a bitmap that is enabled on its
 * node gets these bits.
 */
gboolean
virCheckpointScanMark(virCheckpointScan *scan, GArray *ranges, GError **error);

#endif
