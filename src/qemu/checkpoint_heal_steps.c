/*
 * checkpoint_heal_steps.c: how a heal begins and ends
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: only the last step changes anything: the record of a lost segment names one
 * more sidecar and says "lost" no longer, in one write.
 *
 * With two lost segments L1 < L2 and a replica from before both, what happened to a
 * block that L1 changed and L2 changed back is in no difference: the checkpoints
 * between them cannot be made sound by it.  So between the replica's checkpoint and now
 * one segment may be lost; the later loss is healed first, by a replica from between
 * them, or the checkpoints between are deleted, which makes one of the two.
 */

#include "config.h"

#include <string.h>
#include <sys/stat.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_healpriv.h"
#include "checkpoint_healthpriv.h"
#include "checkpoint_offline.h"
#include "checkpoint_replica.h"

static gboolean
virCheckpointHealRefuse(GError **error, gint code, const gchar *format, ...)
    G_GNUC_PRINTF(3, 4);

static gboolean
virCheckpointHealRefuse(GError **error, gint code, const gchar *format, ...)
{
    va_list args;

    va_start(args, format);
    g_propagate_error(error,
                      g_error_new_valist(VIR_CHECKPOINT_ERROR, code, format, args));
    va_end(args);
    return FALSE;
}

/* Opens the disk of a guest that is off; a top that records is there afterwards. */
static const virCheckpointNode *
virCheckpointHealLookAt(virCheckpointSegments *segments,
                        const gchar *target,
                        GError **error)
{
    g_autoptr(GPtrArray) one = g_ptr_array_new();
    virCheckpointRecord *newest;
    const virCheckpointNode *top;

    g_ptr_array_add(one, (gpointer)target);
    if (!virCheckpointSegmentsOpen(segments, one, error) ||
        !virCheckpointSegmentsEnsure(segments, error) ||
        !virCheckpointSegmentsRefresh(segments, error) ||
        !(top = virCheckpointSegmentsTop(segments, target, error)))
        return NULL;
    newest = virCheckpointSegmentsNewest(segments, target);
    if (newest && virCheckpointSegmentsIsHealthy(
                      segments, top, virCheckpointRecordSegment(newest, target)))
        return top;
    virCheckpointHealRefuse(error, VIR_ERR_OPERATION_INVALID,
                            "nothing records the changes of disk '%s'", target);
    return NULL;
}

static gboolean
virCheckpointHealIsBad(virCheckpointSegments *segments, const gchar *sidecar)
{
    g_autofree gchar *path =
        virCheckpointStoreDomainPath(segments->store, sidecar, NULL);
    virCheckpointSidecarInfo info;

    return !path || !virCheckpointSidecarRead(path, &info, NULL) || info.inUse;
}

static gboolean
virCheckpointHealHasBad(virCheckpointSegments *segments,
                        const virCheckpointSegment *segment)
{
    guint i;

    for (i = 0; i < segment->sidecars->len; i++) {
        if (virCheckpointHealIsBad(segments, g_ptr_array_index(segment->sidecars, i)))
            return TRUE;
    }
    return FALSE;
}

/* A sidecar that cannot be read is a loss like any other: it is said so, durably. */
static gboolean
virCheckpointHealMarkBad(virCheckpointSegments *segments,
                         const gchar *target,
                         GError **error)
{
    guint i;

    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(segments->records, i);
        virCheckpointSegment *segment = virCheckpointRecordSegment(record, target);

        if (!segment || segment->lost || !virCheckpointHealHasBad(segments, segment))
            continue;
        record = virCheckpointSegmentsEdit(segments, record);
        segment = virCheckpointRecordSegment(record, target);
        segment->lost = TRUE;
        virCheckpointSegmentsWarnLost(segments, record, target);
        if (!virCheckpointStoreSave(segments->store, record, error) ||
            !virCheckpointFaultPoint("heal/marked", error))
            return FALSE;
    }
    return TRUE;
}

/* The record of the checkpoint that the replica holds. */
static virCheckpointRecord *
virCheckpointHealBase(virCheckpointSegments *segments,
                      const virCheckpointHeal *heal,
                      const gchar *name,
                      GError **error)
{
    virCheckpointRecord *record;

    if (!name)
        return virCheckpointReplicaFind(segments->records, heal->target, heal->replica,
                                        error);
    record = virCheckpointTreeByName(segments->records, name);
    if (!record || record->state != VIR_CHECKPOINT_RECORD_READY) {
        virCheckpointHealRefuse(error, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                                "no domain checkpoint with matching name '%s'", name);
        return NULL;
    }
    if (virCheckpointRecordSegment(record, heal->target))
        return record;
    virCheckpointHealRefuse(error, VIR_ERR_INVALID_ARG,
                            "checkpoint '%s' does not cover disk '%s'",
                            record->def->name, heal->target);
    return NULL;
}

/* The lost segments that the replica can heal: one between it and now. */
static gboolean
virCheckpointHealPlan(virCheckpointSegments *segments,
                      virCheckpointHeal *heal,
                      const gchar *checkpoint,
                      GError **error)
{
    virCheckpointRecord *base =
        virCheckpointHealBase(segments, heal, checkpoint, error);
    g_autoptr(GPtrArray) chain = NULL;
    const virCheckpointRecord *lost = NULL;
    const virCheckpointRecord *earlier = NULL;
    guint i;

    if (!base)
        return FALSE;
    chain = virCheckpointTreeChain(segments->records, base, heal->target);
    if (chain->len == 0)
        return virCheckpointHealRefuse(
            error, VIR_ERR_CHECKPOINT_INCONSISTENT,
            "what follows checkpoint '%s' is not known: run 'virsh checkpoint-check %s "
            "--repair' first",
            base->def->name, segments->view->name);
    for (i = chain->len; i > 0; i--) {
        const virCheckpointRecord *link = g_ptr_array_index(chain, i - 1);

        if (!virCheckpointRecordSegment(link, heal->target)->lost)
            continue;
        if (lost)
            return virCheckpointHealRefuse(
                error, VIR_ERR_INVALID_ARG,
                "changes of disk '%s' were lost twice, after checkpoint '%s' and after "
                "'%s': heal the later loss first, with a replica of '%s' or of one "
                "between them, or delete the checkpoints after '%s' up to '%s'",
                heal->target, link->def->name, lost->def->name, lost->def->name,
                link->def->name, lost->def->name);
        lost = link;
        g_ptr_array_add(heal->lostIds, g_strdup(link->id));
    }
    /* A copy's target is a moment later than its checkpoint (checkpoint_replica.c). */
    if (lost == base &&
        virCheckpointHealHasBad(segments,
                                virCheckpointRecordSegment(base, heal->target)) &&
        virCheckpointTreePrevious(segments->records, base, heal->target))
        return virCheckpointHealRefuse(error, VIR_ERR_INVALID_ARG,
                                       "parked changes after checkpoint '%s' itself "
                                       "are lost: only a replica of an "
                                       "older checkpoint shows all of them",
                                       base->def->name);
    if (lost) {
        heal->baseId = g_strdup(base->id);
        return TRUE;
    }
    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);
        const virCheckpointSegment *segment =
            virCheckpointRecordSegment(record, heal->target);

        if (segment && segment->lost)
            earlier = record;
    }
    if (earlier)
        return virCheckpointHealRefuse(
            error, VIR_ERR_INVALID_ARG,
            "the replica is of checkpoint '%s', after the loss: changes of disk '%s' "
            "after checkpoint '%s' are lost, only a replica of that one or of an older "
            "one shows them",
            base->def->name, heal->target, earlier->def->name);
    return virCheckpointHealRefuse(error, VIR_ERR_OPERATION_INVALID,
                                   "no changes of disk '%s' are lost", heal->target);
}

/* Everything that could be in the way, before anything is opened. */
static gboolean
virCheckpointHealValidate(virCheckpointEngine *engine,
                          virCheckpointOperation *operation,
                          virCheckpointSegments *segments,
                          virCheckpointHeal *heal,
                          const virCheckpointHealRequest *request,
                          GError **error)
{
    const virCheckpointDisk *disk =
        virCheckpointDomainFindDisk(operation->view->disks, request->disk);
    struct stat own;
    struct stat other;

    if (!disk)
        return virCheckpointHealRefuse(error, VIR_ERR_INVALID_ARG,
                                       "disk '%s' not found in domain", request->disk);
    heal->target = g_strdup(disk->target);
    if (!virCheckpointTreeNewest(segments->records, disk->target))
        return virCheckpointHealRefuse(error, VIR_ERR_OPERATION_INVALID,
                                       "no checkpoint covers disk '%s'", disk->target);
    if (virCheckpointEngineHasMirror(engine, heal->uuid, disk->target) ||
        disk->mirrored)
        return virCheckpointHealRefuse(error, VIR_ERR_BLOCK_COPY_ACTIVE,
                                       "disk '%s' already in active block job",
                                       disk->target);
    if (heal->replica && disk->source && stat(heal->replica, &other) == 0 &&
        stat(disk->source, &own) == 0 && own.st_dev == other.st_dev &&
        own.st_ino == other.st_ino)
        return virCheckpointHealRefuse(error, VIR_ERR_INVALID_ARG,
                                       "replica '%s' is the image of disk '%s' itself",
                                       heal->replica, disk->target);
    return TRUE;
}

gboolean
virCheckpointHealBegin(virCheckpointEngine *engine,
                       virCheckpointHeal *heal,
                       const virCheckpointHealRequest *request,
                       virCheckpointHealRegisterFunc register_,
                       GError **error)
{
    g_autofree gchar *xml =
        virCheckpointHealReplica(request->against, &heal->replica, error);
    g_autoptr(virCheckpointOperation) operation = NULL;
    g_autoptr(virCheckpointSegments) segments = NULL;
    const virCheckpointNode *top;
    g_autofree gchar *node = NULL;

    heal->lostIds = g_ptr_array_new_with_free_func(g_free);
    if (!xml ||
        !(operation = virCheckpointOperationBegin(engine, heal->uuid, 0, error)))
        return FALSE;
    if (!(segments =
              virCheckpointSegmentsNew(operation->store, operation->view, error)) ||
        !virCheckpointHealValidate(engine, operation, segments, heal, request, error) ||
        !register_(heal, error))
        return FALSE;
    heal->stamp = virCheckpointReplicaStamp(heal->replica);
    top = virCheckpointHealLookAt(segments, heal->target, error);
    /* What that look called lost is what is to be healed. */
    g_atomic_int_set(&heal->spoiled, 0);
    if (!top || !virCheckpointHealMarkBad(segments, heal->target, error) ||
        !virCheckpointHealPlan(segments, heal, request->checkpoint, error) ||
        !virCheckpointFaultPoint("heal/planned", error))
        return FALSE;
    heal->sizeBytes = top->sizeBytes;
    heal->newestId = g_strdup(virCheckpointSegmentsNewest(segments, heal->target)->id);
    if (operation->view->running &&
        !virCheckpointSidecarFlush(operation->store, operation->view->monitor,
                                   top->name, top->sizeBytes, error))
        return FALSE;
    heal->storage =
        virCheckpointHealStorageOpen(operation->store, operation->view, heal->target,
                                     xml, virCheckpointSegmentsGranularity(top), error);
    return heal->storage && virCheckpointFaultPoint("heal/opened", error);
}

/* A new name for a sidecar. */
static gchar *
virCheckpointHealFileName(virCheckpointSegments *segments, GError **error)
{
    g_autofree gchar *id = virCheckpointRecordNewId();
    g_autofree gchar *name = g_strconcat(VIR_CHECKPOINT_BITMAP_PREFIX, id, NULL);

    return virCheckpointParkFileName(segments, name, error);
}

/* The live parts, and the sidecars, of all segments from @from to the newest. */
static gboolean
virCheckpointHealGather(virCheckpointSegments *segments,
                        const virCheckpointRecord *from,
                        const gchar *target,
                        GArray *live,
                        GPtrArray *sidecars,
                        GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, target);
    g_autoptr(GPtrArray) chain =
        virCheckpointTreeChain(segments->records, from, target);
    const virCheckpointNode *node;
    guint i;
    guint j;

    for (i = 0; i < chain->len; i++) {
        const virCheckpointSegment *segment =
            virCheckpointRecordSegment(g_ptr_array_index(chain, i), target);

        for (j = 0; j < segment->sidecars->len; j++)
            g_ptr_array_add(sidecars, g_ptr_array_index(segment->sidecars, j));
        for (node = top; node;
             node = virCheckpointGraphBacking(segments->graph, node)) {
            for (j = 0; j < segment->bitmaps->len; j++) {
                const gchar *name = g_ptr_array_index(segment->bitmaps, j);
                const virCheckpointBitmapInfo *info =
                    virCheckpointNodeBitmap(node, name);
                virCheckpointBitmapRef ref = {node->name, name};

                if (info && !info->inconsistent && node->sizeBytes == top->sizeBytes)
                    g_array_append_val(live, ref);
            }
        }
    }
    if (live->len > 0)
        return TRUE;
    return virCheckpointHealRefuse(error, VIR_ERR_OPERATION_FAILED,
                                   "nothing recorded meanwhile");
}

/*
 * Clusters are larger than the bitmap's grain: a write has moved what lies beside it,
 * too.  All that was written since tracking began, a cluster at a time, in a sidecar.
 * The flush is for its drain: writes under way are recorded when they end.
 */
static gboolean
virCheckpointHealWiden(virCheckpointSegments *segments,
                       virCheckpointHeal *heal,
                       const gchar *file,
                       GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, heal->target);
    const virCheckpointRecord *from =
        virCheckpointTreeById(segments->records, heal->newestId);
    virCheckpointMonitor *monitor = segments->view->monitor;
    g_autofree gchar *node = g_strdup(top->name);
    g_autofree gchar *name =
        g_strdup_printf(VIR_CHECKPOINT_HELPER_BITMAP "%08x", g_random_int());
    g_autoptr(GArray) live = g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autoptr(GArray) all = g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autoptr(GPtrArray) sidecars = g_ptr_array_new();
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    virCheckpointBitmapRef ref = {node, name};
    gboolean done;

    if (!from ||
        !virCheckpointHealGather(segments, from, heal->target, live, sidecars, error))
        return from ? FALSE
                    : virCheckpointHealRefuse(error, VIR_ERR_OPERATION_FAILED,
                                              "a checkpoint was deleted meanwhile");
    if (segments->view->running &&
        !virCheckpointSidecarFlush(segments->store, monitor, node, heal->sizeBytes,
                                   error))
        return FALSE;
    virCheckpointTxnAdd(txn, node, name, heal->storage->clusterBytes, 0);
    virCheckpointTxnMerge(txn, node, name, live);
    if (!virCheckpointTxnRun(txn, monitor, error))
        return FALSE;
    g_array_append_val(all, ref);
    done = virCheckpointSidecarLoad(segments->store, monitor, sidecars, node, name,
                                    error) &&
           virCheckpointSidecarWrite(segments->store, monitor, heal->sizeBytes,
                                     heal->storage->clusterBytes, all, file, error);
    virCheckpointTxnRemove(txn, node, name);
    virCheckpointTxnRun(txn, monitor, NULL);
    return done;
}

/* Adds what is known of the time between the replica's checkpoint and @lost. */
static gboolean
virCheckpointHealLoadEarlier(virCheckpointSegments *segments,
                             virCheckpointHeal *heal,
                             const virCheckpointRecord *lost,
                             GError **error)
{
    const virCheckpointRecord *base =
        virCheckpointTreeById(segments->records, heal->baseId);
    g_autoptr(GPtrArray) chain =
        virCheckpointTreeChain(segments->records, base, heal->target);
    guint i;

    for (i = 0; i < chain->len && g_ptr_array_index(chain, i) != lost; i++) {
        const virCheckpointSegment *segment =
            virCheckpointRecordSegment(g_ptr_array_index(chain, i), heal->target);

        if (segment->lost || segment->bitmaps->len > 0)
            return virCheckpointHealRefuse(error, VIR_ERR_OPERATION_FAILED,
                                           "earlier changes cannot be read just now");
        if (!virCheckpointSidecarLoad(segments->store, heal->storage->monitors[1],
                                      segment->sidecars, VIR_CHECKPOINT_HEAL_NODE,
                                      VIR_CHECKPOINT_HEAL_BITMAP, error))
            return FALSE;
    }
    return TRUE;
}

/* What was found becomes the lost segment of @lost. */
static gboolean
virCheckpointHealPutIn(virCheckpointSegments *segments,
                       virCheckpointHeal *heal,
                       virCheckpointRecord *lost,
                       GError **error)
{
    virCheckpointSegment *segment = virCheckpointRecordSegment(lost, heal->target);
    virCheckpointBitmapRef found = {VIR_CHECKPOINT_HEAL_NODE,
                                    VIR_CHECKPOINT_HEAL_BITMAP};
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autofree gchar *file = virCheckpointHealFileName(segments, error);
    g_autofree gchar *wide = NULL;
    guint i;

    g_array_append_val(sources, found);
    if (!file || !virCheckpointHealLoadEarlier(segments, heal, lost, error) ||
        !virCheckpointSidecarWrite(segments->store, heal->storage->monitors[1],
                                   heal->sizeBytes, heal->storage->granularity, sources,
                                   file, error))
        return FALSE;
    if (heal->storage->clusterBytes > heal->storage->granularity &&
        (!(wide = virCheckpointHealFileName(segments, error)) ||
         !virCheckpointHealWiden(segments, heal, wide, error)))
        return FALSE;
    if (!virCheckpointFaultPoint("heal/written", error))
        return FALSE;
    lost = virCheckpointSegmentsEdit(segments, lost);
    segment = virCheckpointRecordSegment(lost, heal->target);
    for (i = segment->sidecars->len; i > 0; i--) {
        if (virCheckpointHealIsBad(segments,
                                   g_ptr_array_index(segment->sidecars, i - 1)))
            g_ptr_array_remove_index(segment->sidecars, i - 1);
    }
    g_ptr_array_add(segment->sidecars, g_steal_pointer(&file));
    if (wide)
        g_ptr_array_add(segment->sidecars, g_steal_pointer(&wide));
    segment->lost = FALSE;
    return virCheckpointStoreSave(segments->store, lost, error) &&
           virCheckpointFaultPoint("heal/saved", error);
}

/* Nothing happened in between that the comparison cannot know of. */
static gboolean
virCheckpointHealStillRight(virCheckpointHeal *heal,
                            const virCheckpointNode *top,
                            GError **error)
{
    g_autofree gchar *stamp = virCheckpointReplicaStamp(heal->replica);

    if (g_atomic_int_get(&heal->cancelled))
        return virCheckpointHealRefuse(error, VIR_ERR_OPERATION_ABORTED,
                                       "it was cancelled");
    if (g_atomic_int_get(&heal->spoiled))
        return virCheckpointHealRefuse(error, VIR_ERR_OPERATION_FAILED,
                                       "changes were lost once more meanwhile");
    if (top->sizeBytes != heal->sizeBytes)
        return virCheckpointHealRefuse(error, VIR_ERR_OPERATION_FAILED,
                                       "the disk was resized meanwhile");
    if (g_strcmp0(stamp, heal->stamp) != 0)
        return virCheckpointHealRefuse(error, VIR_ERR_OPERATION_FAILED,
                                       "the replica was written to meanwhile");
    return TRUE;
}

gboolean
virCheckpointHealFinish(virCheckpointEngine *engine,
                        virCheckpointHeal *heal,
                        GError **error)
{
    g_autoptr(virCheckpointOperation) operation =
        virCheckpointOperationBegin(engine, heal->uuid, 0, error);
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GPtrArray) jobs = NULL;
    const virCheckpointNode *top;
    guint i;

    if (!operation ||
        !(segments =
              virCheckpointSegmentsNew(operation->store, operation->view, error)) ||
        !(top = virCheckpointHealLookAt(segments, heal->target, error)) ||
        !virCheckpointHealStillRight(heal, top, error))
        return FALSE;
    virCheckpointEngineParkRest(engine, segments, heal->target);
    if (!virCheckpointSegmentsRefresh(segments, error))
        return FALSE;
    for (i = 0; i < heal->lostIds->len; i++) {
        virCheckpointRecord *lost = virCheckpointTreeById(
            segments->records, g_ptr_array_index(heal->lostIds, i));
        const virCheckpointSegment *segment =
            lost ? virCheckpointRecordSegment(lost, heal->target) : NULL;

        if (!segment || !segment->lost ||
            !virCheckpointTreeById(segments->records, heal->baseId))
            return virCheckpointHealRefuse(error, VIR_ERR_OPERATION_FAILED,
                                           "its checkpoints were deleted meanwhile");
        if (!virCheckpointHealPutIn(segments, heal, lost, error))
            return FALSE;
    }
    /* Healed it is; what could not be read any more goes when it can. */
    jobs = virCheckpointStoreListJobs(operation->store, NULL);
    if (jobs && jobs->len == 0)
        virCheckpointStoreCollect(operation->store, NULL);
    return TRUE;
}
