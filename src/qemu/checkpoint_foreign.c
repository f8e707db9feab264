/*
 * checkpoint_foreign.c: checkpoints that libvirt itself made, as the base of a copy
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: libvirt keeps one bitmap for each of its checkpoints, persistent and always
 * recording, so that it holds every change since.  External snapshots make it anew,
 * empty, on the layer that they put on top: the changes are the OR of the bitmaps of
 * that name from the top down to the first layer without one.  One that is missing on
 * the top, or is not sound on any of these layers, is not enough.
 *
 * Nothing of libvirt's is changed: its bitmaps are only merged from.
 */

#include "config.h"

#include <libvirt/virterror.h>

#include "checkpoint_backup.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_foreign.h"
#include "checkpoint_segmentspriv.h"
#include "checkpoint_xml.h"

/* The name of the checkpoint's bitmap of disk @target, out of its XML. */
static gchar *
virCheckpointForeignParse(const gchar *xml,
                          const gchar *name,
                          const gchar *target,
                          GError **error)
{
    g_autoptr(virCheckpointDef) def =
        virCheckpointDefParse(xml, VIR_CHECKPOINT_DEF_PARSE_REDEFINE, error);
    guint i;

    if (!def)
        return NULL;
    for (i = 0; def->disks && i < def->disks->len; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);

        if (g_strcmp0(disk->name, target) == 0 &&
            disk->type != VIR_CHECKPOINT_DISK_NONE)
            return g_strdup(disk->bitmap ? disk->bitmap : name);
    }
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                "checkpoint '%s' does not cover disk '%s'", name, target);
    return NULL;
}

static gchar *
virCheckpointForeignLookup(virDomainPtr domain,
                           const gchar *name,
                           const gchar *target,
                           GError **error)
{
    virDomainCheckpointPtr checkpoint = NULL;
    g_autofree gchar *xml = NULL;

    /* Names under which libvirt knows ours for a moment are not for clients. */
    if (!virCheckpointBackupIsOurName(name))
        checkpoint = virDomainCheckpointLookupByName(domain, name, 0);
    if (!checkpoint) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                    "no domain checkpoint with matching name '%s'", name);
        return NULL;
    }
    xml =
        virDomainCheckpointGetXMLDesc(checkpoint, VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN);
    virDomainCheckpointFree(checkpoint);
    if (!xml) {
        virCheckpointDomainSetError(error);
        return NULL;
    }
    return virCheckpointForeignParse(xml, name, target, error);
}

/*
 * The bitmaps on the layers from the top of the disk down; into @sources go those at or
 * below @node.  FALSE if one of them is not sound.
 */
static gboolean
virCheckpointForeignCollect(virCheckpointSegments *segments,
                            const virCheckpointNode *top,
                            const virCheckpointNode *node,
                            const gchar *bitmap,
                            GArray *sources)
{
    const virCheckpointNode *layer = top;
    const virCheckpointBitmapInfo *info = virCheckpointNodeBitmap(top, bitmap);
    gboolean below = FALSE;

    if (!info)
        return FALSE;
    while (layer && (info = virCheckpointNodeBitmap(layer, bitmap))) {
        virCheckpointBitmapRef ref = {layer->name, info->name};

        if (info->inconsistent || !info->persistent || !info->recording)
            return FALSE;
        below = below || layer == node;
        if (below)
            g_array_append_val(sources, ref);
        layer = virCheckpointGraphBacking(segments->graph, layer);
    }
    return TRUE;
}

/* As above, with the error that says what can be done. */
static gboolean
virCheckpointForeignSources(virCheckpointSegments *segments,
                            const gchar *name,
                            const gchar *target,
                            const virCheckpointNode *node,
                            const gchar *bitmap,
                            GArray *sources,
                            GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsTop(segments, target, error);

    if (!top)
        return FALSE;
    if (virCheckpointForeignCollect(segments, top, node ? node : top, bitmap, sources))
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CHECKPOINT_INCONSISTENT,
                "domain '%s', disk '%s': bitmap '%s' of libvirt's checkpoint '%s' is "
                "missing or broken; create a new checkpoint and make a full copy",
                segments->view->name, target, bitmap, name);
    return FALSE;
}

gchar *
virCheckpointForeignBitmap(virCheckpointSegments *segments,
                           const gchar *name,
                           const gchar *target,
                           GError **error)
{
    g_autofree gchar *bitmap =
        virCheckpointForeignLookup(segments->view->domain, name, target, error);
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));

    if (!bitmap || !virCheckpointForeignSources(segments, name, target, NULL, bitmap,
                                                sources, error))
        return NULL;
    return g_steal_pointer(&bitmap);
}

gboolean
virCheckpointForeignSince(virCheckpointSegments *segments,
                          const gchar *name,
                          const gchar *target,
                          const gchar *node,
                          const gchar *work,
                          GError **error)
{
    g_autofree gchar *bitmap =
        virCheckpointForeignLookup(segments->view->domain, name, target, error);
    const virCheckpointNode *on = virCheckpointGraphNode(segments->graph, node);
    const virCheckpointBitmapInfo *info;
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();

    if (!bitmap || !on ||
        !virCheckpointForeignSources(segments, name, target, on, bitmap, sources,
                                     error)) {
        if (bitmap && !on)
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                        "there is no node '%s'", node);
        return FALSE;
    }
    info = virCheckpointNodeBitmap(on, bitmap);
    virCheckpointTxnAdd(txn, node, work, info ? info->granularity : 0, 0);
    if (sources->len > 0)
        virCheckpointTxnMerge(txn, node, work, sources);
    return virCheckpointTxnRun(txn, segments->view->monitor, error);
}

/* The node of image @file that can hold bitmaps, or NULL. */
static const virCheckpointNode *
virCheckpointForeignImage(virCheckpointSegments *segments, const gchar *file)
{
    const GPtrArray *nodes = virCheckpointGraphNodes(segments->graph);
    guint i;

    for (i = 0; i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);

        if (g_strcmp0(node->file, file) == 0 && g_strcmp0(node->driver, "qcow2") == 0 &&
            !node->compatOld && !node->readOnly)
            return node;
    }
    return NULL;
}

static gboolean
virCheckpointForeignCarryOne(virCheckpointSegments *segments,
                             const virCheckpointNode *to,
                             const virCheckpointBitmapInfo *info,
                             GArray *sources,
                             GError **error)
{
    g_autoptr(virCheckpointTxn) stale = virCheckpointTxnNew();
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();

    /* Of an older copy, or of an earlier attempt. */
    if (virCheckpointNodeBitmap(to, info->name)) {
        virCheckpointTxnRemove(stale, to->name, info->name);
        if (!virCheckpointTxnRun(stale, segments->view->monitor, error))
            return FALSE;
    }
    virCheckpointTxnAdd(txn, to->name, info->name, info->granularity,
                        VIR_CHECKPOINT_BITMAP_PERSISTENT);
    virCheckpointTxnMerge(txn, to->name, info->name, sources);
    return virCheckpointTxnRun(txn, segments->view->monitor, error);
}

gboolean
virCheckpointForeignCarry(virCheckpointSegments *segments,
                          const gchar *target,
                          const gchar *from,
                          const gchar *file,
                          GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, target);
    const virCheckpointNode *node =
        top ? virCheckpointGraphLayer(segments->graph, top, from) : NULL;
    const virCheckpointNode *to = virCheckpointForeignImage(segments, file);
    guint i;

    for (i = 0; node && to && i < top->bitmaps->len; i++) {
        const virCheckpointBitmapInfo *info = g_ptr_array_index(top->bitmaps, i);
        g_autoptr(GArray) sources =
            g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));

        if (g_str_has_prefix(info->name, VIR_CHECKPOINT_BITMAP_PREFIX) ||
            !virCheckpointForeignCollect(segments, top, node, info->name, sources) ||
            sources->len == 0)
            continue;
        if (!virCheckpointForeignCarryOne(segments, to, info, sources, error)) {
            g_prefix_error(error, "carry bitmap '%s' to '%s': ", info->name, file);
            return FALSE;
        }
    }
    return virCheckpointFaultPoint("mirror/carried", error);
}
