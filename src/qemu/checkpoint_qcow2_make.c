/*
 * checkpoint_qcow2_make.c: an empty qcow2 file
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: every creation of a checkpoint needs one new sidecar a disk, before it can be
 * answered.  A program started for each costs more than all the rest, and what is
 * needed is four structures of the qcow2 specification (QEMU's docs/interop/qcow2.txt)
 * at fixed places: header, refcount table, one refcount block, and an L1 table that is
 * all zeroes, so that nothing is written of it.  The bitmap is QEMU's to add.
 *
 * Nothing is synced here: a sidecar is worth something only once it was filled, read
 * back and synced.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_sidecar.h"

#define MAGIC 0x514649fbu /* "QFI" and a byte that no text has */
#define CLUSTER_BITS 16
#define CLUSTER_BYTES (G_GUINT64_CONSTANT(1) << CLUSTER_BITS)
/** One L1 entry leads to one L2 table, which is a cluster of entries of 8 bytes. */
#define L1_ENTRY_BYTES (CLUSTER_BYTES * (CLUSTER_BYTES / 8))
/** QEMU opens no image with a larger L1 table: 32 MiB. */
#define L1_MAX_ENTRIES (4u * 1024 * 1024)
#define HEADER_BYTES 104
/** Where things are: the header has cluster 0. */
#define REFCOUNT_TABLE_CLUSTER 1
#define REFCOUNT_BLOCK_CLUSTER 2
#define L1_CLUSTER 3

static void
virCheckpointQcow2Put(guint8 *at, guint bytes, guint64 value)
{
    while (bytes--) {
        at[bytes] = (guint8)value;
        value >>= 8;
    }
}

static void
virCheckpointQcow2MakeHeader(guint8 *header, guint64 sizeBytes, guint64 entries)
{
    virCheckpointQcow2Put(header, 4, MAGIC);
    virCheckpointQcow2Put(header + 4, 4, 3);
    virCheckpointQcow2Put(header + 20, 4, CLUSTER_BITS);
    virCheckpointQcow2Put(header + 24, 8, sizeBytes);
    virCheckpointQcow2Put(header + 36, 4, entries);
    virCheckpointQcow2Put(header + 40, 8, L1_CLUSTER * CLUSTER_BYTES);
    virCheckpointQcow2Put(header + 48, 8, REFCOUNT_TABLE_CLUSTER * CLUSTER_BYTES);
    virCheckpointQcow2Put(header + 56, 4, 1);
    virCheckpointQcow2Put(header + 96, 4, 4); /* refcounts of 16 bits */
    virCheckpointQcow2Put(header + 100, 4, HEADER_BYTES);
}

static gboolean
virCheckpointQcow2Write(int fd, guint64 offset, const guint8 *data, gsize length)
{
    while (length > 0) {
        gssize put = pwrite(fd, data, length, (off_t)offset);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return FALSE;
        data += put;
        offset += (guint64)put;
        length -= (gsize)put;
    }
    return TRUE;
}

static gboolean
virCheckpointQcow2MakeAt(int fd, guint64 sizeBytes)
{
    guint64 entries = MAX(1, (sizeBytes + L1_ENTRY_BYTES - 1) / L1_ENTRY_BYTES);
    guint64 clusters = L1_CLUSTER + (entries * 8 - 1) / CLUSTER_BYTES + 1;
    guint8 header[HEADER_BYTES + 8] = {0}; /* and an end of header extensions */
    guint8 table[8] = {0};
    g_autofree guint8 *block = NULL;
    guint64 i;

    if (sizeBytes > G_MAXINT64 || entries > L1_MAX_ENTRIES) {
        errno = EFBIG;
        return FALSE;
    }
    block = g_malloc0(clusters * 2);
    for (i = 0; i < clusters; i++)
        virCheckpointQcow2Put(block + i * 2, 2, 1);
    virCheckpointQcow2Put(table, 8, REFCOUNT_BLOCK_CLUSTER * CLUSTER_BYTES);
    virCheckpointQcow2MakeHeader(header, sizeBytes, entries);
    return ftruncate(fd, (off_t)(clusters * CLUSTER_BYTES)) == 0 &&
           virCheckpointQcow2Write(fd, REFCOUNT_BLOCK_CLUSTER * CLUSTER_BYTES, block,
                                   clusters * 2) &&
           virCheckpointQcow2Write(fd, REFCOUNT_TABLE_CLUSTER * CLUSTER_BYTES, table,
                                   sizeof(table)) &&
           virCheckpointQcow2Write(fd, 0, header, sizeof(header));
}

gboolean
virCheckpointSidecarMake(const gchar *path, guint64 sizeBytes, GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = -1;

    if (unlink(path) == 0 || errno == ENOENT)
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd >= 0 && virCheckpointQcow2MakeAt(fd, sizeBytes))
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "make sidecar '%s': %s", path, g_strerror(errno));
    return FALSE;
}
