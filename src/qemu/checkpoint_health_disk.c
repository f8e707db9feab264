/*
 * checkpoint_health_disk.c: what is to be said of one disk's checkpoints
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: the same questions as in settling and in a set of changes, asked without
 * acting on the answers: is the newest segment tracked (the invariant), are frozen
 * bitmaps where they were made, does our own reader find each sidecar whole, and does
 * the chain from a checkpoint to the newest exist.  A bad part spoils the checkpoint
 * whose segment it is in and all older ones of that disk, nothing else; it is said
 * once, of the segment, with the one command that mends it.
 *
 * Sizes are upper bounds: parts of a segment may have bits in common, and an OR of them
 * could only be had by giving QEMU bitmaps.
 */

#include "config.h"

#include <string.h>
#include <sys/stat.h>

#include "checkpoint_error.h"
#include "checkpoint_healthpriv.h"
#include "checkpoint_offline.h"

static const gchar *const virCheckpointRoleNames[] = {
    [VIR_CHECKPOINT_ROLE_ACTIVE] = "active",
    [VIR_CHECKPOINT_ROLE_FROZEN] = "frozen",
    [VIR_CHECKPOINT_ROLE_RELEASED] = "released",
    [VIR_CHECKPOINT_ROLE_STRAY] = "stray",
    [VIR_CHECKPOINT_ROLE_OTHER] = "other",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointRoleNames) == VIR_CHECKPOINT_ROLE_LAST);

/* One disk while it is looked at. */
typedef struct virCheckpointHealthView {
    virCheckpointHealthReport *report;
    virCheckpointSegments *segments;
    const gchar *target;
    const virCheckpointNode *top; /* or NULL: cannot be looked at */
    gboolean busy;                /* a block job may just be moving the bitmaps */
    virCheckpointHealth health;
} virCheckpointHealthView;

virCheckpointRole
virCheckpointHealthRole(virCheckpointSegments *segments, const gchar *bitmap)
{
    g_autofree gchar *mark = g_strconcat(bitmap, ".released", NULL);
    guint i;
    guint j;

    if (!g_str_has_prefix(bitmap, VIR_CHECKPOINT_BITMAP_PREFIX))
        return VIR_CHECKPOINT_ROLE_OTHER;
    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            if (!g_ptr_array_find_with_equal_func(segment->bitmaps, bitmap, g_str_equal,
                                                  NULL))
                continue;
            return virCheckpointSegmentsIsRecording(segments, segment->target, bitmap)
                       ? VIR_CHECKPOINT_ROLE_ACTIVE
                       : VIR_CHECKPOINT_ROLE_FROZEN;
        }
    }
    return virCheckpointStoreJournalHas(segments->store, mark)
               ? VIR_CHECKPOINT_ROLE_RELEASED
               : VIR_CHECKPOINT_ROLE_STRAY;
}

static void
virCheckpointHealthWorsen(virCheckpointHealth *health, virCheckpointHealth by)
{
    *health = MAX(*health, by);
}

/* One of another store: its host needs it as long as the disk may come back there. */
static void
virCheckpointHealthForeign(virCheckpointHealthView *view,
                           const virCheckpointNode *node,
                           const virCheckpointBitmapInfo *info)
{
    gboolean covered =
        virCheckpointSegmentsNewest(view->segments, view->target) != NULL;

    virCheckpointHealthWorsen(&view->health, VIR_CHECKPOINT_HEALTH_WRONG);
    virCheckpointHealthProblem(
        view->report, VIR_CHECKPOINT_HEALTH_WRONG,
        covered ? VIR_CHECKPOINT_MEND_REPAIR : VIR_CHECKPOINT_MEND_NONE, view->target,
        NULL, "stray-bitmap",
        "bitmap '%s' in '%s' is of another store and tracks no checkpoint that is "
        "known here: those can be used on a host that has that store; %s",
        info->name, node->file,
        covered ? "it can be taken out if the disk never goes back there"
                : "here create a checkpoint and make a full copy");
}

/* A stray bitmap is no danger to a checkpoint, but somebody must say whose it is. */
static void
virCheckpointHealthJudgeBitmap(virCheckpointHealthView *view,
                               const virCheckpointNode *node,
                               const virCheckpointBitmapInfo *info,
                               virCheckpointRole role)
{
    if (role == VIR_CHECKPOINT_ROLE_STRAY && node == view->top &&
        virCheckpointSegmentsIsForeign(view->segments, info->name)) {
        virCheckpointHealthForeign(view, node, info);
    } else if (role == VIR_CHECKPOINT_ROLE_STRAY && node == view->top &&
               !view->segments->unread) {
        virCheckpointHealthWorsen(&view->health, VIR_CHECKPOINT_HEALTH_WRONG);
        virCheckpointHealthProblem(view->report, VIR_CHECKPOINT_HEALTH_WRONG,
                                   VIR_CHECKPOINT_MEND_REPAIR, view->target, NULL,
                                   "stray-bitmap",
                                   "bitmap '%s' in '%s' belongs to no checkpoint that "
                                   "is known here",
                                   info->name, node->file);
    } else if (role == VIR_CHECKPOINT_ROLE_RELEASED && !node->readOnly) {
        virCheckpointHealthWorsen(&view->health, VIR_CHECKPOINT_HEALTH_WRONG);
        virCheckpointHealthProblem(
            view->report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_REPAIR,
            view->target, NULL, "unneeded-bitmap",
            "bitmap '%s' in '%s' is not needed any more", info->name, node->file);
    }
}

/* The named bitmaps of all layers, top first. */
static virCheckpointJson *
virCheckpointHealthBitmaps(virCheckpointHealthView *view)
{
    virCheckpointJson *list = virCheckpointJsonNewArray();
    const virCheckpointNode *node;
    guint i;

    for (node = view->top; node;
         node = virCheckpointGraphBacking(view->segments->graph, node)) {
        for (i = 0; i < node->bitmaps->len; i++) {
            const virCheckpointBitmapInfo *info = g_ptr_array_index(node->bitmaps, i);
            virCheckpointRole role;

            if (g_str_has_prefix(info->name, VIR_CHECKPOINT_HELPER_BITMAP) ||
                g_str_has_prefix(info->name, VIR_CHECKPOINT_MIRROR_BITMAP))
                continue;
            role = virCheckpointHealthRole(view->segments, info->name);
            virCheckpointHealthJudgeBitmap(view, node, info, role);
            virCheckpointJsonAppend(
                list, virCheckpointJsonBuild(
                          "s:name", info->name, "s:image", node->file, "s:role",
                          virCheckpointRoleNames[role], "u:changed", info->countBytes,
                          "u:granularity", info->granularity, "b:recording",
                          info->recording, "b:inconsistent", info->inconsistent,
                          "b:persistent", info->persistent, NULL));
        }
    }
    return list;
}

/* The parts of one segment that are files.  *@changed grows; FALSE: one is bad. */
static gboolean
virCheckpointHealthSidecars(virCheckpointHealthView *view,
                            const virCheckpointRecord *record,
                            const virCheckpointSegment *segment,
                            virCheckpointJson *list,
                            guint64 *changed)
{
    gboolean good = TRUE;
    guint i;

    for (i = 0; i < segment->sidecars->len; i++) {
        const gchar *file = g_ptr_array_index(segment->sidecars, i);
        g_autofree gchar *path =
            virCheckpointStoreDomainPath(view->segments->store, file, NULL);
        virCheckpointSidecarInfo info = {0};
        g_autoptr(GError) error = NULL;
        struct stat st = {0};
        gboolean read =
            path && virCheckpointSidecarRead(path, &info, &error) && !info.inUse;

        if (path && stat(path, &st) == 0 && read)
            *changed += info.countBytes;
        virCheckpointJsonAppend(
            list, virCheckpointJsonBuild("s:file", file, "u:bytes", (guint64)st.st_size,
                                         "u:changed", info.countBytes, "u:granularity",
                                         info.granularity, "b:good", read, NULL));
        if (read)
            continue;
        good = FALSE;
        virCheckpointHealthProblem(
            view->report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_HEAL,
            view->target, record->def->name, "bad-sidecar",
            "changes after checkpoint '%s' cannot be read: %s", record->def->name,
            error ? error->message : "its sidecar was not closed");
    }
    return good;
}

/* TRUE if frozen bitmap @name is on a layer at or above the one where it was made. */
static gboolean
virCheckpointHealthFindFrozen(virCheckpointHealthView *view,
                              const virCheckpointSegment *segment,
                              const gchar *name,
                              guint64 *changed)
{
    g_autoptr(GPtrArray) layers =
        virCheckpointSegmentsLayers(view->segments, view->top, segment, name);
    gboolean found = FALSE;
    guint i;

    for (i = 0; i < layers->len; i++) {
        const virCheckpointBitmapInfo *info =
            virCheckpointNodeBitmap(g_ptr_array_index(layers, i), name);

        if (info && info->inconsistent)
            return FALSE;
        if (info)
            *changed += info->countBytes;
        found = found || info;
    }
    return found;
}

/* The parts of one segment that are in images.  The worst of them. */
static virCheckpointHealth
virCheckpointHealthLive(virCheckpointHealthView *view,
                        const virCheckpointRecord *record,
                        const virCheckpointSegment *segment,
                        virCheckpointJson *list,
                        guint64 *changed)
{
    virCheckpointHealth health = VIR_CHECKPOINT_HEALTH_HEALTHY;
    guint i;

    for (i = 0; i < segment->bitmaps->len; i++) {
        const gchar *name = g_ptr_array_index(segment->bitmaps, i);

        virCheckpointJsonAppend(list, virCheckpointJsonNewString(name));
        if (!view->top) {
            virCheckpointHealthWorsen(&health, VIR_CHECKPOINT_HEALTH_UNKNOWN);
            continue;
        }
        if (virCheckpointHealthFindFrozen(view, segment, name, changed)) {
            if (virCheckpointHealthRole(view->segments, name) ==
                    VIR_CHECKPOINT_ROLE_FROZEN &&
                !view->busy)
                virCheckpointHealthProblem(
                    view->report, VIR_CHECKPOINT_HEALTH_WRONG,
                    VIR_CHECKPOINT_MEND_REPAIR, view->target, record->def->name,
                    "unparked",
                    "changes after checkpoint '%s' are still in the image, where a "
                    "crash would take them",
                    record->def->name);
            continue;
        }
        /* The invariant's is the last word on the active one. */
        if (virCheckpointHealthRole(view->segments, name) == VIR_CHECKPOINT_ROLE_ACTIVE)
            continue;
        virCheckpointHealthWorsen(&health, VIR_CHECKPOINT_HEALTH_WRONG);
        virCheckpointHealthProblem(
            view->report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_HEAL,
            view->target, record->def->name, "lost",
            "changes after checkpoint '%s' are lost: its bitmap is not in the image",
            record->def->name);
    }
    return health;
}

/* The newest segment: does anything record? */
static virCheckpointHealth
virCheckpointHealthTracking(virCheckpointHealthView *view,
                            const virCheckpointRecord *record,
                            const virCheckpointSegment *segment)
{
    if (!view->top)
        return VIR_CHECKPOINT_HEALTH_UNKNOWN;
    if (virCheckpointSegmentsIsHealthy(view->segments, view->top, segment) ||
        virCheckpointSegmentsIsKept(view->segments, segment))
        return VIR_CHECKPOINT_HEALTH_HEALTHY;
    if (view->busy) {
        virCheckpointHealthProblem(
            view->report, VIR_CHECKPOINT_HEALTH_UNKNOWN, VIR_CHECKPOINT_MEND_NONE,
            view->target, record->def->name, "moving",
            "a block job moves the disk to another file just now: look again later");
        return VIR_CHECKPOINT_HEALTH_UNKNOWN;
    }
    /* A record that cannot be read may be the one of which the bitmap records. */
    if (view->segments->unread)
        return VIR_CHECKPOINT_HEALTH_UNKNOWN;
    if (!virCheckpointSegmentsCanTrack(view->segments, view->top)) {
        virCheckpointHealthProblem(
            view->report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_NONE,
            view->target, record->def->name, "untrackable",
            "image '%s' cannot hold a persistent bitmap: nothing records since "
            "checkpoint '%s'; move the disk to a qcow2 image with compat=1.1",
            view->top->file, record->def->name);
        return VIR_CHECKPOINT_HEALTH_WRONG;
    }
    if (!segment->lost)
        virCheckpointHealthProblem(
            view->report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_HEAL,
            view->target, record->def->name, "lost",
            "changes after checkpoint '%s' are lost: the bitmap that recorded them is "
            "%s '%s'",
            record->def->name,
            virCheckpointSegmentActive(segment) &&
                    virCheckpointNodeBitmap(view->top,
                                            virCheckpointSegmentActive(segment))
                ? "inconsistent in"
                : "not in",
            view->top->file);
    return VIR_CHECKPOINT_HEALTH_WRONG;
}

/* One checkpoint.  *@newer: the worst of what lies between it and now; *@since: what
 * changed in that time, at most. */
static virCheckpointJson *
virCheckpointHealthCheckpoint(virCheckpointHealthView *view,
                              const virCheckpointRecord *record,
                              virCheckpointHealth *newer,
                              guint64 *since)
{
    const virCheckpointSegment *segment =
        virCheckpointRecordSegment(record, view->target);
    g_autoptr(GPtrArray) chain =
        virCheckpointTreeChain(view->segments->records, record, view->target);
    virCheckpointJson *sidecars = virCheckpointJsonNewArray();
    virCheckpointJson *bitmaps = virCheckpointJsonNewArray();
    virCheckpointHealth health;
    guint64 changed = 0;

    health = virCheckpointHealthLive(view, record, segment, bitmaps, &changed);
    if (!virCheckpointHealthSidecars(view, record, segment, sidecars, &changed))
        health = VIR_CHECKPOINT_HEALTH_WRONG;
    if (segment->lost) {
        health = VIR_CHECKPOINT_HEALTH_WRONG;
        virCheckpointHealthProblem(
            view->report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_HEAL,
            view->target, record->def->name, "lost",
            "changes after checkpoint '%s' are lost: QEMU ended without writing its "
            "bitmaps, the disk was changed behind them, or another store has them",
            record->def->name);
    }
    if (virCheckpointSegmentsNewest(view->segments, view->target) == record)
        virCheckpointHealthWorsen(&health,
                                  virCheckpointHealthTracking(view, record, segment));
    /* A gap is told of the whole store. */
    if (chain->len == 0)
        virCheckpointHealthWorsen(&health, VIR_CHECKPOINT_HEALTH_WRONG);
    virCheckpointHealthWorsen(newer, health);
    *since += changed;
    return virCheckpointJsonBuild(
        "s:checkpoint", record->def->name, "s:health", virCheckpointHealthText(*newer),
        "s:own", virCheckpointHealthText(health), "b:lost", segment->lost, "u:changed",
        changed, "u:since", view->top ? MIN(*since, view->top->sizeBytes) : *since,
        "u:granularity", segment->granularity, "a:bitmaps", bitmaps, "a:sidecars",
        sidecars, NULL);
}

/* All that cover the disk, newest first. */
static virCheckpointJson *
virCheckpointHealthCheckpoints(virCheckpointHealthView *view)
{
    g_autoptr(GPtrArray) sorted = virCheckpointTreeSorted(view->segments->records);
    virCheckpointHealth newer = VIR_CHECKPOINT_HEALTH_HEALTHY;
    virCheckpointJson *list = virCheckpointJsonNewArray();
    guint64 since = 0;
    guint i;

    for (i = sorted->len; i > 0; i--) {
        const virCheckpointRecord *record = g_ptr_array_index(sorted, i - 1);

        if (record->state != VIR_CHECKPOINT_RECORD_READY ||
            !virCheckpointRecordSegment(record, view->target))
            continue;
        virCheckpointJsonAppend(
            list, virCheckpointHealthCheckpoint(view, record, &newer, &since));
    }
    virCheckpointHealthWorsen(&view->health, newer);
    return list;
}

/* TRUE while a job of anybody's may have bitmaps under way. */
static gboolean
virCheckpointHealthIsBusy(virCheckpointSegments *segments, const gchar *target)
{
    virDomainBlockJobInfo info;

    return segments->view->running &&
           virDomainGetBlockJobInfo(segments->view->domain, target, &info, 0) == 1;
}

virCheckpointJson *
virCheckpointHealthDisk(virCheckpointHealthReport *report,
                        const gchar *target,
                        const GError *failed)
{
    virCheckpointHealthView view = {
        .report = report,
        .segments = report->segments,
        .target = target,
        .top = virCheckpointSegmentsFindTop(report->segments, target),
        .busy = virCheckpointHealthIsBusy(report->segments, target),
    };
    virCheckpointJson *bitmaps;
    virCheckpointJson *checkpoints;

    if (!view.top) {
        view.health = VIR_CHECKPOINT_HEALTH_UNKNOWN;
        virCheckpointHealthProblem(
            report, VIR_CHECKPOINT_HEALTH_UNKNOWN, VIR_CHECKPOINT_MEND_NONE, target,
            NULL, "unreadable", "cannot look into the disk: %s",
            failed ? failed->message : "the domain has no such disk with a medium");
    }
    checkpoints = virCheckpointHealthCheckpoints(&view);
    bitmaps = virCheckpointHealthBitmaps(&view);
    return virCheckpointJsonBuild(
        "s:disk", target, "s:health", virCheckpointHealthText(view.health), "s:image",
        view.top ? view.top->file : NULL, "u:size",
        view.top ? view.top->sizeBytes : (guint64)0, "a:checkpoints", checkpoints,
        "a:bitmaps", bitmaps, NULL);
}
