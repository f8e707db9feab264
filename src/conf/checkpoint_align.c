/*
 * checkpoint_align.c: the disks of a checkpoint against the disks of its domain
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A client names any of the domain's disks, by target or by source path, in any order,
 * or none at all.  After alignment there is one entry for each disk of the domain, in
 * the domain's order, and none of them is left to a default.
 *
 * Rules, codes and texts are those of libvirt 9.0: virDomainCheckpointAlignDisks for
 * all drivers, and what its QEMU driver adds when a checkpoint is created (bitmap named
 * as the checkpoint, qcow2 only).
 */

#include "config.h"

#include "checkpoint_def.h"

#include "checkpoint_error.h"

static gboolean G_GNUC_PRINTF(2, 3)
    virCheckpointAlignFail(GError **error, const gchar *format, ...)
{
    g_autofree gchar *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED, text);
    return FALSE;
}

/* Entries not filled in yet are NULL. */
static void
virCheckpointAlignFreeEntry(gpointer entry)
{
    virCheckpointDiskDefFree(entry);
}

/* Returns: the disk's place in @disks, or -1. */
static gint
virCheckpointAlignFind(GPtrArray *disks, const gchar *name)
{
    guint i;

    for (i = 0; i < disks->len; i++) {
        const virCheckpointDomainDisk *disk = g_ptr_array_index(disks, i);

        if (g_strcmp0(disk->target, name) == 0 || g_strcmp0(disk->source, name) == 0)
            return (gint)i;
    }
    return -1;
}

/* Puts what the XML says of one disk at that disk's place in @aligned. */
static gboolean
virCheckpointAlignNamed(GPtrArray *aligned,
                        GPtrArray *disks,
                        const virCheckpointDiskDef *named,
                        GError **error)
{
    gboolean excluded = named->type == VIR_CHECKPOINT_DISK_NONE;
    gint place = virCheckpointAlignFind(disks, named->name);
    const virCheckpointDomainDisk *disk = NULL;
    virCheckpointDiskDef *entry = NULL;

    if (place < 0)
        return virCheckpointAlignFail(error, "no disk named '%s'", named->name);
    if (g_ptr_array_index(aligned, place))
        return virCheckpointAlignFail(error, "disk '%s' specified twice", named->name);
    disk = g_ptr_array_index(disks, place);
    if (!excluded && (disk->empty || disk->readOnly))
        return virCheckpointAlignFail(error, "disk '%s' is empty or readonly",
                                      disk->target);

    entry = virCheckpointDiskDefNew(
        disk->target, excluded ? VIR_CHECKPOINT_DISK_NONE : VIR_CHECKPOINT_DISK_BITMAP);
    entry->bitmap = g_strdup(named->bitmap);
    entry->hasSize = named->hasSize;
    entry->sizeBytes = named->sizeBytes;
    g_ptr_array_index(aligned, place) = entry;
    return TRUE;
}

/* What libvirt's QEMU driver adds when a checkpoint is created. */
static gboolean
virCheckpointAlignCheckNew(const virCheckpointDef *def,
                           const virCheckpointDomainDisk *disk,
                           const virCheckpointDiskDef *entry,
                           GError **error)
{
    if (g_strcmp0(entry->bitmap, def->name) != 0)
        return virCheckpointAlignFail(error,
                                      "bitmap for disk '%s' must match checkpoint "
                                      "name '%s'",
                                      entry->name, def->name);
    if (!disk->qcow2)
        return virCheckpointAlignFail(
            error, "checkpoint for disk %s unsupported for storage type %s",
            entry->name, disk->format ? disk->format : "raw");
    return TRUE;
}

/* Settles every disk of @aligned that the XML left open. */
static gboolean
virCheckpointAlignFill(const virCheckpointDef *def,
                       GPtrArray *aligned,
                       GPtrArray *disks,
                       gboolean redefine,
                       GError **error)
{
    gboolean all = !def->disks && !redefine;
    guint i;

    for (i = 0; i < disks->len; i++) {
        const virCheckpointDomainDisk *disk = g_ptr_array_index(disks, i);
        virCheckpointDiskDef *entry = g_ptr_array_index(aligned, i);

        if (!entry) {
            gboolean bitmap = all && !disk->empty && !disk->readOnly;

            entry = virCheckpointDiskDefNew(disk->target,
                                            bitmap ? VIR_CHECKPOINT_DISK_BITMAP
                                                   : VIR_CHECKPOINT_DISK_NONE);
            g_ptr_array_index(aligned, i) = entry;
        }
        if (entry->type == VIR_CHECKPOINT_DISK_NONE)
            continue;
        if (!entry->bitmap)
            entry->bitmap = g_strdup(def->name);
        if (!redefine && !virCheckpointAlignCheckNew(def, disk, entry, error))
            return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointDefAlignDisks(virCheckpointDef *def,
                           GPtrArray *disks,
                           gboolean redefine,
                           GError **error)
{
    g_autoptr(GPtrArray) aligned =
        g_ptr_array_new_with_free_func(virCheckpointAlignFreeEntry);
    guint i;

    g_assert(def && def->name && disks);

    if (disks->len == 0)
        return virCheckpointAlignFail(
            error, "domain must have at least one disk to perform checkpoints");
    if (def->disks && def->disks->len > disks->len)
        return virCheckpointAlignFail(error,
                                      "too many disk checkpoint requests for domain");

    g_ptr_array_set_size(aligned, (gint)disks->len);
    for (i = 0; def->disks && i < def->disks->len; i++) {
        if (!virCheckpointAlignNamed(aligned, disks, g_ptr_array_index(def->disks, i),
                                     error))
            return FALSE;
    }
    if (!virCheckpointAlignFill(def, aligned, disks, redefine, error))
        return FALSE;

    g_clear_pointer(&def->disks, g_ptr_array_unref);
    def->disks = g_steal_pointer(&aligned);
    return TRUE;
}
