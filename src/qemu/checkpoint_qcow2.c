/*
 * checkpoint_qcow2.c: reading the one bitmap of a sidecar
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: QEMU answers blockdev-del with success even when it could not write the
 * bitmap out (a full file system).  So each sidecar is read back before anything relies
 * on it, from the file itself and without QEMU: header, bitmaps extension, directory,
 * table, data, as the qcow2 specification (QEMU's docs/interop/qcow2.txt) lays them
 * out.
 *
 * The file is not trusted: every offset and length is checked against the file's size
 * before it is used, and nothing larger than one table or one cluster is held in
 * memory.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_sidecar.h"

#define HEADER_BYTES 104
#define EXTENSION_BITMAPS 0x23852875u
#define AUTOCLEAR_BITMAPS 1u
#define FLAG_IN_USE 1u
#define ENTRY_BYTES 24
/** A sidecar holds one bitmap: its directory is a few dozen bytes. */
#define DIRECTORY_MAX_BYTES (64u * 1024)
/** QEMU's own limit is 2^27 entries; 512 MiB of bits in 512-byte clusters is 2^20. */
#define TABLE_MAX_ENTRIES (1u << 20)
#define TABLE_OFFSET_MASK G_GUINT64_CONSTANT(0x00fffffffffffe00)

typedef struct virCheckpointQcow2 {
    int fd;
    const gchar *path;
    guint64 fileBytes;
    guint64 sizeBytes;
    guint64 clusterBytes;
} virCheckpointQcow2;

/* Where the bitmap is. */
typedef struct virCheckpointQcow2Bitmap {
    guint64 tableOffset;
    guint32 tableEntries;
    guint32 flags;
    guint8 granularityBits;
} virCheckpointQcow2Bitmap;

static guint64
virCheckpointQcow2Get(const guint8 *at, guint bytes)
{
    guint64 value = 0;

    while (bytes--)
        value = value << 8 | *at++;
    return value;
}

static gboolean
virCheckpointQcow2Bad(const virCheckpointQcow2 *image,
                      const gchar *what,
                      GError **error)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "sidecar '%s': %s", image->path, what);
    return FALSE;
}

/* Exactly @length bytes at @offset, all inside the file. */
static gboolean
virCheckpointQcow2Read(const virCheckpointQcow2 *image,
                       guint64 offset,
                       void *buffer,
                       gsize length,
                       GError **error)
{
    gchar *at = buffer;

    if (offset > image->fileBytes || length > image->fileBytes - offset)
        return virCheckpointQcow2Bad(image, "is truncated", error);
    while (length > 0) {
        gssize got = pread(image->fd, at, length, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return virCheckpointQcow2Bad(image, g_strerror(errno), error);
        if (got == 0)
            return virCheckpointQcow2Bad(image, "is truncated", error);
        at += got;
        offset += (guint64)got;
        length -= (gsize)got;
    }
    return TRUE;
}

/* Checks the header; @extensions: where the header extensions begin. */
static gboolean
virCheckpointQcow2ReadHeader(virCheckpointQcow2 *image,
                             guint64 *extensions,
                             GError **error)
{
    guint8 header[HEADER_BYTES];
    guint64 clusterBits;
    guint64 length;

    if (!virCheckpointQcow2Read(image, 0, header, sizeof(header), error))
        return FALSE;
    if (memcmp(header, "QFI\xfb", 4) != 0 || virCheckpointQcow2Get(header + 4, 4) != 3)
        return virCheckpointQcow2Bad(image, "is not a qcow2 version 3 file", error);
    clusterBits = virCheckpointQcow2Get(header + 20, 4);
    if (clusterBits < 9 || clusterBits > 21)
        return virCheckpointQcow2Bad(image, "has an impossible cluster size", error);
    image->clusterBytes = G_GUINT64_CONSTANT(1) << clusterBits;
    image->sizeBytes = virCheckpointQcow2Get(header + 24, 8);
    if (image->sizeBytes > G_MAXINT64)
        return virCheckpointQcow2Bad(image, "has an impossible size", error);
    length = virCheckpointQcow2Get(header + 100, 4);
    if (length < HEADER_BYTES || length > image->clusterBytes)
        return virCheckpointQcow2Bad(image, "has an impossible header length", error);
    if (!(virCheckpointQcow2Get(header + 88, 8) & AUTOCLEAR_BITMAPS))
        return virCheckpointQcow2Bad(image, "holds no valid bitmaps", error);
    *extensions = length;
    return TRUE;
}

/* The bitmap directory, a copy of it, as the bitmaps extension names it. */
static GBytes *
virCheckpointQcow2ReadDirectory(const virCheckpointQcow2 *image,
                                guint64 at,
                                GError **error)
{
    for (;;) {
        guint8 head[8];
        guint8 data[24];
        guint64 length;
        guint64 bytes;
        g_autofree guint8 *directory = NULL;

        if (!virCheckpointQcow2Read(image, at, head, sizeof(head), error))
            return NULL;
        length = virCheckpointQcow2Get(head + 4, 4);
        if (virCheckpointQcow2Get(head, 4) == 0 ||
            at + 8 + length > image->clusterBytes) {
            virCheckpointQcow2Bad(image, "holds no bitmaps", error);
            return NULL;
        }
        if (virCheckpointQcow2Get(head, 4) != EXTENSION_BITMAPS) {
            at += 8 + (length + 7) / 8 * 8;
            continue;
        }
        if (length < sizeof(data)) {
            virCheckpointQcow2Bad(image, "has a short bitmaps extension", error);
            return NULL;
        }
        if (!virCheckpointQcow2Read(image, at + 8, data, sizeof(data), error))
            return NULL;
        bytes = virCheckpointQcow2Get(data + 8, 8);
        if (bytes < ENTRY_BYTES || bytes > DIRECTORY_MAX_BYTES) {
            virCheckpointQcow2Bad(image, "has a bitmap directory of impossible length",
                                  error);
            return NULL;
        }
        directory = g_malloc(bytes);
        if (!virCheckpointQcow2Read(image, virCheckpointQcow2Get(data + 16, 8),
                                    directory, bytes, error))
            return NULL;
        return g_bytes_new_take(g_steal_pointer(&directory), bytes);
    }
}

static gboolean
virCheckpointQcow2FindBitmap(const virCheckpointQcow2 *image,
                             GBytes *directory,
                             virCheckpointQcow2Bitmap *bitmap,
                             GError **error)
{
    g_autofree gchar *name = virCheckpointSidecarBitmap(image->path);
    gsize left;
    const guint8 *at = g_bytes_get_data(directory, &left);

    while (left >= ENTRY_BYTES) {
        guint64 nameBytes = virCheckpointQcow2Get(at + 18, 2);
        guint64 extraBytes = virCheckpointQcow2Get(at + 20, 4);
        guint64 entryBytes = (ENTRY_BYTES + nameBytes + extraBytes + 7) / 8 * 8;

        if (entryBytes > left)
            return virCheckpointQcow2Bad(image, "has a broken bitmap directory", error);
        if (extraBytes == 0 && nameBytes == strlen(name) &&
            memcmp(at + ENTRY_BYTES, name, nameBytes) == 0) {
            bitmap->tableOffset = virCheckpointQcow2Get(at, 8);
            bitmap->tableEntries = (guint32)virCheckpointQcow2Get(at + 8, 4);
            bitmap->flags = (guint32)virCheckpointQcow2Get(at + 12, 4);
            bitmap->granularityBits = at[17];
            if (at[16] != 1)
                return virCheckpointQcow2Bad(image, "has a bitmap of unknown type",
                                             error);
            return TRUE;
        }
        at += entryBytes;
        left -= entryBytes;
    }
    return virCheckpointQcow2Bad(image, "holds no bitmap of its own name", error);
}

/* Set bits among the first @bits of @data. */
static guint64
virCheckpointQcow2Popcount(const guint8 *data, guint64 bits)
{
    guint64 count = 0;
    guint64 i;

    for (i = 0; i < bits / 8; i++)
        count += (guint64)__builtin_popcount(data[i]);
    if (bits % 8)
        count += (guint64)__builtin_popcount(data[i] & ((1u << bits % 8) - 1));
    return count;
}

static gboolean
virCheckpointQcow2Count(const virCheckpointQcow2 *image,
                        const virCheckpointQcow2Bitmap *bitmap,
                        guint64 *count,
                        GError **error)
{
    guint64 granularity = G_GUINT64_CONSTANT(1) << bitmap->granularityBits;
    guint64 bits =
        image->sizeBytes / granularity + (image->sizeBytes % granularity ? 1 : 0);
    guint64 perEntry = image->clusterBytes * 8;
    guint64 entries = bits / perEntry + (bits % perEntry ? 1 : 0);
    g_autofree guint8 *table = NULL;
    g_autofree guint8 *data = g_malloc0(image->clusterBytes);
    guint64 set = 0;
    guint64 i;

    if (entries != bitmap->tableEntries || entries > TABLE_MAX_ENTRIES)
        return virCheckpointQcow2Bad(image, "has a bitmap table of the wrong length",
                                     error);
    table = g_malloc(entries * 8 + 1);
    if (!virCheckpointQcow2Read(image, bitmap->tableOffset, table, entries * 8, error))
        return FALSE;
    for (i = 0; i < entries; i++) {
        guint64 entry = virCheckpointQcow2Get(table + i * 8, 8);
        guint64 offset = entry & TABLE_OFFSET_MASK;
        guint64 here = MIN(perEntry, bits - i * perEntry);

        if ((entry & ~(TABLE_OFFSET_MASK | 1)) || (offset && (entry & 1)))
            return virCheckpointQcow2Bad(image, "has a broken bitmap table", error);
        if (!offset) {
            set += entry & 1 ? here : 0;
            continue;
        }
        if (!virCheckpointQcow2Read(image, offset, data, (here + 7) / 8, error))
            return FALSE;
        set += virCheckpointQcow2Popcount(data, here);
    }
    *count = set * granularity;
    return TRUE;
}

gboolean
virCheckpointSidecarRead(const gchar *path,
                         virCheckpointSidecarInfo *info,
                         GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    virCheckpointQcow2 image = {.fd = fd, .path = path};
    virCheckpointQcow2Bitmap bitmap;
    virCheckpointSidecarInfo found = {0};
    g_autoptr(GBytes) directory = NULL;
    struct stat status;
    guint64 extensions;

    if (fd < 0 || fstat(fd, &status) < 0)
        return virCheckpointQcow2Bad(&image, g_strerror(errno), error);
    if (!S_ISREG(status.st_mode))
        return virCheckpointQcow2Bad(&image, "is no file", error);
    image.fileBytes = (guint64)status.st_size;
    if (!virCheckpointQcow2ReadHeader(&image, &extensions, error) ||
        !(directory = virCheckpointQcow2ReadDirectory(&image, extensions, error)) ||
        !virCheckpointQcow2FindBitmap(&image, directory, &bitmap, error))
        return FALSE;
    if (bitmap.granularityBits < 9 || bitmap.granularityBits > 31)
        return virCheckpointQcow2Bad(&image, "has a bitmap of impossible granularity",
                                     error);
    found.sizeBytes = image.sizeBytes;
    found.granularity = G_GUINT64_CONSTANT(1) << bitmap.granularityBits;
    found.inUse = (bitmap.flags & FLAG_IN_USE) != 0;
    if (!virCheckpointQcow2Count(&image, &bitmap, &found.countBytes, error))
        return FALSE;
    *info = found;
    return TRUE;
}
