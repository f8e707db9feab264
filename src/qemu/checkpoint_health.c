/*
 * checkpoint_health.c: check: the whole of a domain, looked at and left alone
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory (docs/internals/health.md): the report is one JSON object, what virsh shows is
 * made from it.  It is made in the domain's slot, so that nothing is seen half done,
 * and without settling: what settling would find is said instead, with the command that
 * mends it.  The disks of a guest that is off are opened read-only, one after the
 * other, so that one that cannot be opened keeps nobody from looking at the others.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_healthpriv.h"
#include "checkpoint_offline.h"

static const gchar *const virCheckpointHealthTexts[] = {
    [VIR_CHECKPOINT_HEALTH_HEALTHY] = "healthy",
    [VIR_CHECKPOINT_HEALTH_UNKNOWN] = "unknown",
    [VIR_CHECKPOINT_HEALTH_WRONG] = "wrong",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointHealthTexts) == VIR_CHECKPOINT_HEALTH_LAST);

const gchar *
virCheckpointHealthText(virCheckpointHealth health)
{
    return virCheckpointHealthTexts[health];
}

/* As a shell takes it: quoted only if it must be. */
static gchar *
virCheckpointHealthWord(const gchar *text)
{
    static const gchar plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                 "0123456789_-.+:@/";

    return *text && strspn(text, plain) == strlen(text) ? g_strdup(text)
                                                        : g_shell_quote(text);
}

static gchar *
virCheckpointHealthCommand(const virCheckpointDomainView *view,
                           virCheckpointMend mend,
                           const gchar *disk)
{
    g_autofree gchar *name = virCheckpointHealthWord(view->name);

    switch (mend) {
    case VIR_CHECKPOINT_MEND_REPAIR:
        return g_strdup_printf("virsh checkpoint-check %s --repair", name);
    case VIR_CHECKPOINT_MEND_HEAL:
        return g_strdup_printf("virsh checkpoint-check %s --heal --disk %s --against "
                               "REPLICA.xml",
                               name, disk);
    case VIR_CHECKPOINT_MEND_NONE:
    case VIR_CHECKPOINT_MEND_LAST:
        break;
    }
    return NULL;
}

void
virCheckpointHealthProblem(virCheckpointHealthReport *report,
                           virCheckpointHealth health,
                           virCheckpointMend mend,
                           const gchar *disk,
                           const gchar *checkpoint,
                           const gchar *code,
                           const gchar *format,
                           ...)
{
    g_autofree gchar *command =
        virCheckpointHealthCommand(report->segments->view, mend, disk);
    g_autofree gchar *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    report->health = MAX(report->health, health);
    virCheckpointJsonAppend(report->problems,
                            virCheckpointJsonBuild("s:problem", code, "s:health",
                                                   virCheckpointHealthText(health),
                                                   "s:disk", disk, "s:checkpoint",
                                                   checkpoint, "s:text", text,
                                                   "s:command", command, NULL));
}

static gint
virCheckpointHealthCompare(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const gchar *const *)a, *(const gchar *const *)b);
}

static void
virCheckpointHealthAddTarget(GPtrArray *targets, const gchar *target)
{
    if (!g_ptr_array_find_with_equal_func(targets, target, g_str_equal, NULL))
        g_ptr_array_add(targets, g_strdup(target));
}

GPtrArray *
virCheckpointHealthTargets(virCheckpointSegments *segments)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;
    guint j;

    for (i = 0; i < segments->records->len; i++) {
        g_autoptr(GPtrArray) of =
            virCheckpointOfflineTargets(g_ptr_array_index(segments->records, i));

        for (j = 0; j < of->len; j++)
            virCheckpointHealthAddTarget(targets, g_ptr_array_index(of, j));
    }
    for (i = 0; segments->view->running && i < segments->view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(segments->view->disks, i);
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, disk->target);

        for (j = 0; top && j < top->bitmaps->len; j++) {
            const virCheckpointBitmapInfo *info = g_ptr_array_index(top->bitmaps, j);

            if (g_str_has_prefix(info->name, VIR_CHECKPOINT_BITMAP_PREFIX))
                virCheckpointHealthAddTarget(targets, disk->target);
        }
    }
    g_ptr_array_sort(targets, virCheckpointHealthCompare);
    return targets;
}

virCheckpointRecord *
virCheckpointHealthGap(virCheckpointSegments *segments, virCheckpointRecord **previous)
{
    g_autoptr(GPtrArray) sorted = virCheckpointTreeSorted(segments->records);
    guint i;
    guint j;

    *previous = NULL;
    for (i = 0; i < sorted->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(sorted, i);
        g_autoptr(GPtrArray) below = NULL;

        if (!record->def->parent || virCheckpointTreeParent(segments->records, record))
            continue;
        below = virCheckpointTreeDescendants(segments->records, record->def->name);
        /* The last one that nothing follows, and that is not after it. */
        for (j = 0; j < sorted->len; j++) {
            virCheckpointRecord *other = g_ptr_array_index(sorted, j);
            g_autoptr(GPtrArray) children =
                virCheckpointTreeChildren(segments->records, other->def->name);

            /* Times are in seconds: its descendants may be as old. */
            if (other == record || children->len > 0 ||
                g_ptr_array_find(below, other, NULL) ||
                other->def->creationTime > record->def->creationTime ||
                (*previous &&
                 (*previous)->def->creationTime > other->def->creationTime))
                continue;
            *previous = other;
        }
        if (*previous)
            return record;
    }
    return NULL;
}

static gchar *
virCheckpointHealthFolder(virCheckpointEngine *engine, virCheckpointSegments *segments)
{
    return g_build_filename(virCheckpointStoreRoot(engine->store), segments->view->uuid,
                            NULL);
}

GPtrArray *
virCheckpointHealthOrphans(virCheckpointEngine *engine, virCheckpointSegments *segments)
{
    GPtrArray *orphans = g_ptr_array_new_with_free_func(g_free);
    g_autofree gchar *folder = virCheckpointHealthFolder(engine, segments);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    g_autoptr(GHashTable) used = g_hash_table_new(g_str_hash, g_str_equal);
    const gchar *name;
    guint i;
    guint j;
    guint k;

    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            for (k = 0; k < segment->sidecars->len; k++)
                g_hash_table_add(used, g_ptr_array_index(segment->sidecars, k));
        }
    }
    while (dir && (name = g_dir_read_name(dir))) {
        if (g_str_has_suffix(name, ".tmp") ||
            (g_str_has_suffix(name, ".qcow2") && !g_hash_table_contains(used, name)))
            g_ptr_array_add(orphans, g_strdup(name));
    }
    g_ptr_array_sort(orphans, virCheckpointHealthCompare);
    return orphans;
}

static virCheckpointJson *
virCheckpointHealthStrings(GPtrArray *strings)
{
    virCheckpointJson *list = virCheckpointJsonNewArray();
    guint i;

    for (i = 0; i < strings->len; i++)
        virCheckpointJsonAppend(
            list, virCheckpointJsonNewString(g_ptr_array_index(strings, i)));
    return list;
}

/* What concerns no single disk. */
static virCheckpointJson *
virCheckpointHealthStore(virCheckpointEngine *engine,
                         virCheckpointHealthReport *report,
                         gboolean jobs)
{
    virCheckpointSegments *segments = report->segments;
    g_autoptr(GPtrArray) bad = virCheckpointStoreBadFiles(segments->store);
    g_autoptr(GPtrArray) orphans = virCheckpointHealthOrphans(engine, segments);
    g_autofree gchar *folder = virCheckpointHealthFolder(engine, segments);
    virCheckpointRecord *previous;
    virCheckpointRecord *behind = virCheckpointHealthGap(segments, &previous);
    guint i;

    for (i = 0; i < bad->len; i++)
        virCheckpointHealthProblem(
            report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_REPAIR, NULL, NULL,
            "bad-record", "file '%s' in '%s' cannot be read: its checkpoint is %s",
            (const gchar *)g_ptr_array_index(bad, i), folder,
            segments->unread ? "not known until it can, and is given up by repair"
                             : "gone");
    if (behind)
        virCheckpointHealthProblem(
            report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_REPAIR, NULL,
            previous->def->name, "gap",
            "the record of checkpoint '%s', between '%s' and '%s', is gone",
            behind->def->parent, previous->def->name, behind->def->name);
    for (i = 0; !jobs && bad->len == 0 && i < orphans->len; i++)
        virCheckpointHealthProblem(
            report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_REPAIR, NULL, NULL,
            "unneeded-file", "file '%s' in '%s' belongs to no checkpoint",
            (const gchar *)g_ptr_array_index(orphans, i), folder);
    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        if (record->state != VIR_CHECKPOINT_RECORD_READY && !jobs)
            virCheckpointHealthProblem(
                report, VIR_CHECKPOINT_HEALTH_WRONG, VIR_CHECKPOINT_MEND_REPAIR, NULL,
                record->def->name, "unfinished",
                "the %s of checkpoint '%s' was interrupted",
                record->state == VIR_CHECKPOINT_RECORD_CREATING ? "creation"
                                                                : "deletion",
                record->def->name);
    }
    return virCheckpointJsonBuild("s:folder", folder, "u:checkpoints",
                                  (guint64)segments->records->len, "a:unreadable",
                                  virCheckpointHealthStrings(bad), "a:unneeded",
                                  virCheckpointHealthStrings(orphans), NULL);
}

/* Copies under way. */
static virCheckpointJson *
virCheckpointHealthJobs(virCheckpointSegments *segments)
{
    g_autoptr(GPtrArray) jobs = virCheckpointStoreListJobs(segments->store, NULL);
    virCheckpointJson *list = virCheckpointJsonNewArray();
    guint i;

    for (i = 0; jobs && i < jobs->len; i++) {
        const virCheckpointJobRecord *job = g_ptr_array_index(jobs, i);

        virCheckpointJsonAppend(
            list, virCheckpointJsonBuild("s:disk", job->target, "s:state",
                                         virCheckpointJobStateToString(job->state),
                                         "s:to", job->destPath, NULL));
    }
    return list;
}

/* Libvirt's own checkpoints: beside ours, and never touched. */
static virCheckpointJson *
virCheckpointHealthTheirs(const virCheckpointDomainView *view)
{
    virCheckpointJson *list = virCheckpointJsonNewArray();
    virDomainCheckpointPtr *theirs = NULL;
    gint count = virDomainListAllCheckpoints(view->domain, &theirs, 0);
    gint i;

    for (i = 0; i < count; i++) {
        const gchar *name = virDomainCheckpointGetName(theirs[i]);

        if (!virCheckpointBackupIsOurName(name))
            virCheckpointJsonAppend(list, virCheckpointJsonNewString(name));
        virDomainCheckpointFree(theirs[i]);
    }
    free(theirs);
    return list;
}

/* Opens disk @target of a guest that is off. */
static void
virCheckpointHealthOpen(virCheckpointSegments *segments,
                        const gchar *target,
                        GError **error)
{
    g_autoptr(GPtrArray) one = g_ptr_array_new();

    if (segments->view->running)
        return;
    g_ptr_array_add(one, (gpointer)target);
    if (!virCheckpointDomainFindDisk(segments->view->disks, target)) {
        virCheckpointOfflineClose(segments->view);
        g_clear_pointer(&segments->graph, virCheckpointGraphFree);
        return;
    }
    if (!virCheckpointSegmentsOpen(segments, one, error))
        g_clear_pointer(&segments->graph, virCheckpointGraphFree);
}

virCheckpointJson *
virCheckpointHealthLook(virCheckpointEngine *engine, virCheckpointSegments *segments)
{
    const virCheckpointDomainView *view = segments->view;
    virCheckpointHealthReport report = {
        .segments = segments,
        .problems = virCheckpointJsonNewArray(),
    };
    g_autoptr(GPtrArray) targets = virCheckpointHealthTargets(segments);
    g_autoptr(GError) alive = NULL;
    virCheckpointJson *disks = virCheckpointJsonNewArray();
    virCheckpointJson *jobs = virCheckpointHealthJobs(segments);
    virCheckpointJson *store =
        virCheckpointHealthStore(engine, &report, virCheckpointJsonLength(jobs) > 0);
    guint i;

    if (!view->running && !virCheckpointRecoveryNoQemu(view->uuid, view->name, &alive))
        virCheckpointHealthProblem(&report, VIR_CHECKPOINT_HEALTH_WRONG,
                                   VIR_CHECKPOINT_MEND_NONE, NULL, NULL, "two-minds",
                                   "%s", alive->message);
    for (i = 0; i < targets->len; i++) {
        const gchar *target = g_ptr_array_index(targets, i);
        g_autoptr(GError) failed = NULL;

        if (!alive)
            virCheckpointHealthOpen(segments, target, &failed);
        virCheckpointJsonAppend(
            disks, virCheckpointHealthDisk(&report, target, alive ? alive : failed));
    }
    return virCheckpointJsonBuild(
        "s:domain", view->name, "s:uuid", view->uuid, "b:running", view->running,
        "s:health", virCheckpointHealthText(report.health), "a:problems",
        report.problems, "a:disks", disks, "a:copies", jobs, "a:libvirt",
        virCheckpointHealthTheirs(view), "a:store", store, NULL);
}

virCheckpointJson *
virCheckpointEngineCheck(virCheckpointEngine *engine, const gchar *uuid, GError **error)
{
    g_autoptr(virCheckpointOperation) operation = virCheckpointOperationBegin(
        engine, uuid, VIR_CHECKPOINT_OPERATION_NO_SETTLE, error);
    g_autoptr(virCheckpointSegments) segments = NULL;

    if (!operation)
        return NULL;
    virCheckpointStoreLookAgain(operation->store);
    if (!(segments =
              virCheckpointSegmentsNew(operation->store, operation->view, error)))
        return NULL;
    return virCheckpointHealthLook(engine, segments);
}
