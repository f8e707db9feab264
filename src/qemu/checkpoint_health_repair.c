/*
 * checkpoint_health_repair.c: repair: what needs no decision
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: settling does most of it, so that runs first, whether it is thought to be
 * needed or not.  What it leaves alone, because nothing tells it whose it is, is done
 * here, since an admin says that this store is the right one:
 *
 * A bitmap of ours that no record has is merged into the one that records and then
 * removed: its bits are in the newest segment from then on, too much at worst.  Where
 * nothing records it goes only if the journal says that we made it.
 *
 * A record that cannot be read is set aside, with the sidecars that may be its own;
 * nothing reads them any more and nothing deletes them.  A record that is gone, or was
 * set aside, leaves a gap: the changes that it stood for are lost, which is said of the
 * record before it, durably, before the one behind it becomes its child.
 *
 * What was repaired is what was wrong before and is not wrong any more.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_heal.h"
#include "checkpoint_healthpriv.h"
#include "checkpoint_offline.h"

/* Gives file @name of the folder a name that nobody reads. */
static gboolean
virCheckpointRepairSetAside(virCheckpointSegments *segments,
                            const gchar *name,
                            GError **error)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(segments->store, name, error);
    g_autofree gchar *aside = g_strconcat(path ? path : "", ".bad", NULL);

    return path && virCheckpointFileRename(path, aside, error) &&
           virCheckpointFaultPoint("repair/set-aside", error);
}

/* Sidecars first: as long as a record is bad nobody collects them. */
static gboolean
virCheckpointRepairBadFiles(virCheckpointEngine *engine,
                            virCheckpointSegments *segments,
                            GError **error)
{
    g_autoptr(GPtrArray) bad = virCheckpointStoreBadFiles(segments->store);
    g_autoptr(GPtrArray) orphans = virCheckpointHealthOrphans(engine, segments);
    gboolean any = FALSE;
    guint i;

    for (i = 0; i < bad->len; i++)
        any = any || g_str_has_suffix(g_ptr_array_index(bad, i), ".checkpoint.xml");
    for (i = 0; any && i < orphans->len; i++) {
        const gchar *name = g_ptr_array_index(orphans, i);

        if (g_str_has_suffix(name, ".qcow2") &&
            !virCheckpointRepairSetAside(segments, name, error))
            return FALSE;
    }
    for (i = 0; i < bad->len; i++) {
        const gchar *name = g_ptr_array_index(bad, i);

        /* A copy's record may name files that need a decision. */
        if (g_str_has_suffix(name, ".checkpoint.xml") &&
            !virCheckpointRepairSetAside(segments, name, error))
            return FALSE;
    }
    return virCheckpointSegmentsRefresh(segments, error);
}

/* As long as a record cannot be read nothing is settled: it is given up before that. */
static gboolean
virCheckpointRepairUnread(virCheckpointEngine *engine,
                          const gchar *uuid,
                          GError **error)
{
    g_autoptr(virCheckpointOperation) operation = virCheckpointOperationBegin(
        engine, uuid, VIR_CHECKPOINT_OPERATION_NO_SETTLE, error);
    g_autoptr(virCheckpointSegments) segments = NULL;

    if (!operation || !(segments = virCheckpointSegmentsNew(operation->store,
                                                            operation->view, error)))
        return FALSE;
    return !segments->unread || virCheckpointRepairBadFiles(engine, segments, error);
}

/* Says that the changes after @record are lost, of each disk as of then. */
static gboolean
virCheckpointRepairLose(virCheckpointSegments *segments,
                        virCheckpointRecord *record,
                        GError **error)
{
    g_autoptr(GPtrArray) targets = virCheckpointHealthTargets(segments);
    guint i;

    for (i = 0; i < targets->len; i++) {
        const gchar *target = g_ptr_array_index(targets, i);
        virCheckpointRecord *owner =
            virCheckpointRecordSegment(record, target)
                ? record
                : virCheckpointTreePrevious(segments->records, record, target);
        virCheckpointSegment *segment =
            owner ? virCheckpointRecordSegment(owner, target) : NULL;

        if (!segment || segment->lost)
            continue;
        owner = virCheckpointSegmentsEdit(segments, owner);
        segment = virCheckpointRecordSegment(owner, target);
        segment->lost = TRUE;
        virCheckpointHealSpoil(segments->view->uuid, target);
        virCheckpointSegmentsWarnLost(segments, owner, target);
        if (!virCheckpointStoreSave(segments->store, owner, error))
            return FALSE;
    }
    return virCheckpointFaultPoint("repair/lost", error);
}

static gboolean
virCheckpointRepairGaps(virCheckpointSegments *segments, GError **error)
{
    virCheckpointRecord *previous;
    virCheckpointRecord *behind;

    while ((behind = virCheckpointHealthGap(segments, &previous))) {
        if (!virCheckpointRepairLose(segments, previous, error))
            return FALSE;
        behind = virCheckpointSegmentsEdit(segments, behind);
        g_free(behind->def->parent);
        behind->def->parent = g_strdup(previous->def->name);
        if (!virCheckpointStoreSave(segments->store, behind, error) ||
            !virCheckpointFaultPoint("repair/linked", error) ||
            !virCheckpointSegmentsRefresh(segments, error))
            return FALSE;
    }
    return TRUE;
}

/* What is to be done about stray @info on @top: into what it is merged; NULL with TRUE:
 * removed as it is; FALSE: not for us to say. */
static gboolean
virCheckpointRepairJudge(virCheckpointSegments *segments,
                         const gchar *target,
                         const virCheckpointNode *top,
                         const virCheckpointBitmapInfo *info,
                         const gchar **into)
{
    virCheckpointRecord *newest = virCheckpointSegmentsNewest(segments, target);
    const virCheckpointSegment *segment =
        newest ? virCheckpointRecordSegment(newest, target) : NULL;

    *into = NULL;
    if (info->busy)
        return FALSE;
    if (info->inconsistent)
        return TRUE;
    if (segment && virCheckpointSegmentsIsHealthy(segments, top, segment)) {
        *into = virCheckpointSegmentActive(segment);
        return TRUE;
    }
    return !segment && virCheckpointStoreJournalHas(segments->store, info->name);
}

/* Stray bitmaps on the top of disk @target.  *@any: there is one that can go. */
static gboolean
virCheckpointRepairStray(virCheckpointSegments *segments,
                         const gchar *target,
                         gboolean look,
                         gboolean *any,
                         GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, target);
    guint i;

    for (i = 0; top && i < top->bitmaps->len; i++) {
        const virCheckpointBitmapInfo *info = g_ptr_array_index(top->bitmaps, i);
        g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
        g_autoptr(GArray) sources =
            g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
        virCheckpointBitmapRef ref = {top->name, info->name};
        const gchar *into;

        if (virCheckpointHealthRole(segments, info->name) !=
                VIR_CHECKPOINT_ROLE_STRAY ||
            !virCheckpointRepairJudge(segments, target, top, info, &into))
            continue;
        *any = TRUE;
        if (look)
            continue;
        if (into) {
            g_array_append_val(sources, ref);
            virCheckpointTxnMerge(txn, top->name, into, sources);
        }
        virCheckpointTxnRemove(txn, top->name, info->name);
        if (!virCheckpointTxnRun(txn, segments->view->monitor, error) ||
            !virCheckpointFaultPoint("repair/stray", error))
            return FALSE;
    }
    return TRUE;
}

/* The same, with the images of a guest that is off opened for it. */
static gboolean
virCheckpointRepairDisk(virCheckpointSegments *segments,
                        const gchar *target,
                        GError **error)
{
    g_autoptr(GPtrArray) one = g_ptr_array_new();
    gboolean any = FALSE;
    gboolean done;

    g_ptr_array_add(one, (gpointer)target);
    if (!virCheckpointSegmentsOpen(segments, one, error) ||
        !virCheckpointRepairStray(segments, target, TRUE, &any, error))
        return FALSE;
    if (!any)
        return TRUE;
    done = virCheckpointSegmentsWritable(segments, one, error) &&
           virCheckpointRepairStray(segments, target, FALSE, &any, error) &&
           virCheckpointSegmentsRestamp(segments, error);
    return virCheckpointSegmentsReadBack(segments, done ? error : NULL) && done &&
           virCheckpointSegmentsRefresh(segments, error);
}

static gboolean
virCheckpointRepairRun(virCheckpointOperation *operation,
                       virCheckpointSegments *segments,
                       GError **error)
{
    g_autoptr(GPtrArray) targets = NULL;
    g_autoptr(GPtrArray) jobs = virCheckpointStoreListJobs(operation->store, error);
    guint i;

    if (!jobs || !virCheckpointRepairBadFiles(operation->engine, segments, error) ||
        !virCheckpointRepairGaps(segments, error))
        return FALSE;
    targets = virCheckpointHealthTargets(segments);
    for (i = 0; i < targets->len; i++) {
        const gchar *target = g_ptr_array_index(targets, i);
        g_autoptr(GError) failed = NULL;

        /* One that cannot be opened is told by the report. */
        if (!virCheckpointRepairDisk(segments, target, &failed))
            g_info("domain %s, disk %s: not repaired: %s", segments->view->name, target,
                   failed->message);
    }
    if (jobs->len > 0)
        return TRUE;
    return virCheckpointSegmentsEnsure(segments, error) &&
           (virCheckpointSegmentsPark(segments, NULL, NULL), TRUE) &&
           virCheckpointStoreCollect(operation->store, error);
}

/* The texts of @before's problems that are not among @after's. */
static virCheckpointJson *
virCheckpointRepairCompare(const virCheckpointJson *before,
                           const virCheckpointJson *after)
{
    const virCheckpointJson *were = virCheckpointJsonGet(before, "problems");
    const virCheckpointJson *are = virCheckpointJsonGet(after, "problems");
    virCheckpointJson *repaired = virCheckpointJsonNewArray();
    gsize i;
    gsize j;

    for (i = 0; i < virCheckpointJsonLength(were); i++) {
        const virCheckpointJson *problem = virCheckpointJsonIndex(were, i);
        const gchar *text = virCheckpointJsonGetString(problem, "text");

        for (j = 0; j < virCheckpointJsonLength(are); j++) {
            if (g_strcmp0(
                    virCheckpointJsonGetString(virCheckpointJsonIndex(are, j), "text"),
                    text) == 0)
                break;
        }
        if (j == virCheckpointJsonLength(are))
            virCheckpointJsonAppend(repaired, virCheckpointJsonNewString(text));
    }
    return repaired;
}

virCheckpointJson *
virCheckpointEngineRepair(virCheckpointEngine *engine,
                          const gchar *uuid,
                          GError **error)
{
    g_autoptr(virCheckpointJson) before = virCheckpointEngineCheck(engine, uuid, error);
    g_autoptr(virCheckpointOperation) operation = NULL;
    g_autoptr(virCheckpointSegments) segments = NULL;
    virCheckpointJson *after;

    if (!before)
        return NULL;
    virCheckpointEngineUnsettle(engine, uuid);
    if (!virCheckpointRepairUnread(engine, uuid, error) ||
        !(operation = virCheckpointOperationBegin(engine, uuid, 0, error)) ||
        !(segments =
              virCheckpointSegmentsNew(operation->store, operation->view, error)))
        return NULL;
    if (!virCheckpointRepairRun(operation, segments, error)) {
        virCheckpointEngineUnsettle(engine, uuid);
        return NULL;
    }
    if (!virCheckpointSegmentsRefresh(segments, error))
        return NULL;
    after = virCheckpointHealthLook(engine, segments);
    virCheckpointJsonAdd(after, "repaired", virCheckpointRepairCompare(before, after));
    return after;
}
