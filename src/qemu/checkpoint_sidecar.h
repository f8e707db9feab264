/*
 * checkpoint_sidecar.h: frozen bits in small qcow2 files of their own
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_SIDECAR_H
#define VIR_CHECKPOINT_SIDECAR_H

#include "checkpoint_qmp.h"
#include "checkpoint_store.h"

/** Returns: (transfer full): name of the one bitmap that sidecar @file (a path or a
 * name, maybe of the unfinished file) holds: the file's own without ".qcow2".  So a
 * file that stands under another one's name is not taken for it. */
gchar *
virCheckpointSidecarBitmap(const gchar *file);

/** What the qcow2 bitmap reader found (checkpoint_qcow2.c). */
typedef struct virCheckpointSidecarInfo {
    guint64 sizeBytes;
    guint64 granularity;
    guint64 countBytes; /* set bits times granularity (the last granule counts whole) */
    gboolean inUse;
} virCheckpointSidecarInfo;

/** Reads the bitmap virCheckpointSidecarBitmap() of the qcow2 file @path,
 * bounds-checked, no QEMU. A missing bitmap or malformed file is an error naming it. */
gboolean
virCheckpointSidecarRead(const gchar *path,
                         virCheckpointSidecarInfo *info,
                         GError **error);

/**
 * virCheckpointSidecarReadAll:
 * @sidecars: gchar*: file names in the folder
 *
 * Reads each as virCheckpointSidecarRead(), once.
 * Returns: (transfer full): virCheckpointSidecarInfo, in step with them; NULL when one
 * cannot be read.
 */
GArray *
virCheckpointSidecarReadAll(virCheckpointStoreDomain *store,
                            GPtrArray *sidecars,
                            GError **error);

/** Makes file @path, an empty qcow2 of @sizeBytes that only we can read, in place of
 * what has that name; not synced (checkpoint_qcow2_make.c). */
gboolean
virCheckpointSidecarMake(const gchar *path, guint64 sizeBytes, GError **error);

/** One sidecar that is to be written. */
typedef struct virCheckpointSidecarPart {
    gchar *fileName; /* inside the domain's folder: "<id>.<n>.qcow2" */
    guint64 sizeBytes;
    guint64 granularity;
    /* virCheckpointBitmapRef, whose names are borrowed: bitmaps of the monitor's nodes,
     * at least one, all seen present, idle and consistent, none still recording unless
     * its node is read-only or its successor already records */
    GArray *sources;
    gboolean counted;   /* it will have @countBytes, which nothing changes any more */
    guint64 countBytes; /* as QEMU showed it */
} virCheckpointSidecarPart;

virCheckpointSidecarPart *
virCheckpointSidecarPartNew(const gchar *fileName,
                            guint64 sizeBytes,
                            guint64 granularity);
void
virCheckpointSidecarPartFree(virCheckpointSidecarPart *part);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointSidecarPart, virCheckpointSidecarPartFree)

/** Some sidecars on their way: files that QEMU has open and that have no names yet. */
typedef struct virCheckpointSidecarBatch virCheckpointSidecarBatch;

/**
 * virCheckpointSidecarBatchOpen:
 * @parts: (array length=count): borrowed while the batch lives; of different file names
 *
 * Makes the files and opens them in QEMU.  Freeing the batch closes and removes what
 * has not got its name.
 */
virCheckpointSidecarBatch *
virCheckpointSidecarBatchOpen(virCheckpointStoreDomain *store,
                              virCheckpointMonitor *monitor,
                              virCheckpointSidecarPart **parts,
                              guint count,
                              GError **error);
void
virCheckpointSidecarBatchFree(virCheckpointSidecarBatch *batch);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointSidecarBatch, virCheckpointSidecarBatchFree)

/** Adds to @txn what fills them: a new bitmap in each, its sources merged. */
void
virCheckpointSidecarBatchFill(virCheckpointSidecarBatch *batch, virCheckpointTxn *txn);

/** After that transaction ran: closed, read back and synced, the files get their names,
 * durably.  Parts may have become counted since the batch was opened. */
gboolean
virCheckpointSidecarBatchClose(virCheckpointSidecarBatch *batch, GError **error);

/**
 * virCheckpointSidecarWriteAll:
 * @parts: virCheckpointSidecarPart*, of different file names
 *
 * Each file is complete, read back, durable and renamed into place when TRUE: one
 * transaction for all, and one look unless all are counted.  On failure some may be
 * there, and maybe *.tmp.
 */
gboolean
virCheckpointSidecarWriteAll(virCheckpointStoreDomain *store,
                             virCheckpointMonitor *monitor,
                             GPtrArray *parts,
                             GError **error);

/** As virCheckpointSidecarWriteAll(), of one part. */
gboolean
virCheckpointSidecarWrite(virCheckpointStoreDomain *store,
                          virCheckpointMonitor *monitor,
                          guint64 sizeBytes,
                          guint64 granularity,
                          GArray *sources,
                          const gchar *fileName,
                          GError **error);

/**
 * virCheckpointSidecarSalvage:
 * @image: a qcow2 file that is in nobody's graph; @bitmap: a persistent one in it
 * @saved: (out): FALSE if the image is gone or has no sound bitmap of that name
 *
 * Writes the bits into sidecar @fileName.  Returns: FALSE on errors.
 */
gboolean
virCheckpointSidecarSalvage(virCheckpointStoreDomain *store,
                            virCheckpointMonitor *monitor,
                            const gchar *image,
                            const gchar *bitmap,
                            const gchar *fileName,
                            gboolean *saved,
                            GError **error);

/**
 * virCheckpointSidecarFlush:
 * @node: of a running guest; @sizeBytes: its size
 *
 * What the guest wrote so far, QEMU's own caches of the image's format included, is in
 * the image when this is TRUE: an external snapshot of the node begins with a flush
 * whose failure is told, so one is begun, onto a scratch file, in a transaction that
 * then aborts.  No other command tells whether a flush succeeded.
 */
gboolean
virCheckpointSidecarFlush(virCheckpointStoreDomain *store,
                          virCheckpointMonitor *monitor,
                          const gchar *node,
                          guint64 sizeBytes,
                          GError **error);

/**
 * virCheckpointSidecarUnite:
 * @sidecars: gchar*: file names in the folder, at least one; @infos: what
 * virCheckpointSidecarReadAll() said of them; @sizeBytes: of the new one
 *
 * Makes sidecar @fileName with the OR of them, in a storage daemon of its own, of the
 * finest granularity among them: nothing is lost in that.
 */
gboolean
virCheckpointSidecarUnite(virCheckpointStoreDomain *store,
                          GPtrArray *sidecars,
                          GArray *infos,
                          guint64 sizeBytes,
                          const gchar *fileName,
                          GError **error);

/**
 * virCheckpointSidecarLoad:
 * @sidecars: GPtrArray of gchar*: file names in the folder
 * Merges them all into the existing bitmap @name of @node (same virtual size). In
 * batches, or, of many and into a guest's, united first; all helper nodes, fdsets and
 * files are gone afterwards, also on failure.
 */
gboolean
virCheckpointSidecarLoad(virCheckpointStoreDomain *store,
                         virCheckpointMonitor *monitor,
                         GPtrArray *sidecars,
                         const gchar *node,
                         const gchar *name,
                         GError **error);

#endif
