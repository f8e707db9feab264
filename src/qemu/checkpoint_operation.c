/*
 * checkpoint_operation.c: one operation on one domain, and settling
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: an operation begins by taking the domain's slot, then looks at the domain,
 * then settles it unless that is known to be done.  An operation that fails half way
 * says so (virCheckpointEngineUnsettle) and leaves the rest to the next one.  A domain
 * that libvirt does not know anymore keeps its folder: it may be defined again, on this
 * host or another.
 */

#include "config.h"

#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_leaving.h"
#include "checkpoint_segmentspriv.h"

/* A copy of ours that was taken up may have to end before its domain can be settled:
 * for so long it is tried again, and the copy gets the domain in between. */
#define JOB_WAIT_MS 10000
#define JOB_WAIT_STEP_MS 100

/* What engine->settled says of a domain. */
enum {
    VIR_CHECKPOINT_UNSETTLED, /* not in the table */
    VIR_CHECKPOINT_SETTLING,  /* an event that takes it back is seen at the end */
    VIR_CHECKPOINT_SETTLED,
};

gboolean
virCheckpointEngineIsSettled(virCheckpointEngine *engine, const gchar *uuid)
{
    gint state;

    g_mutex_lock(&engine->lock);
    state = GPOINTER_TO_INT(g_hash_table_lookup(engine->settled, uuid));
    g_mutex_unlock(&engine->lock);
    return state == VIR_CHECKPOINT_SETTLED;
}

static void
virCheckpointOperationSetSettled(virCheckpointEngine *engine,
                                 const gchar *uuid,
                                 gint from,
                                 gint to)
{
    g_mutex_lock(&engine->lock);
    if (from == VIR_CHECKPOINT_UNSETTLED ||
        GPOINTER_TO_INT(g_hash_table_lookup(engine->settled, uuid)) == from)
        g_hash_table_insert(engine->settled, g_strdup(uuid), GINT_TO_POINTER(to));
    g_mutex_unlock(&engine->lock);
}

static gboolean
virCheckpointOperationSettle(virCheckpointOperation *operation, GError **error)
{
    virCheckpointEngine *engine = operation->engine;
    const gchar *uuid = operation->view->uuid;

    if (virCheckpointEngineIsSettled(engine, uuid))
        return TRUE;
    virCheckpointOperationSetSettled(engine, uuid, VIR_CHECKPOINT_UNSETTLED,
                                     VIR_CHECKPOINT_SETTLING);
    virCheckpointLeavingSettle(engine, operation->store, operation->view);
    if (!virCheckpointRecoverySettle(engine, operation->store, operation->view,
                                     error)) {
        virCheckpointEngineSettleLater(engine, uuid);
        return FALSE;
    }
    /* A domain that is off is looked at each time: its start may precede its event. */
    if (operation->view->running)
        virCheckpointOperationSetSettled(engine, uuid, VIR_CHECKPOINT_SETTLING,
                                         VIR_CHECKPOINT_SETTLED);
    return TRUE;
}

static virCheckpointOperation *
virCheckpointOperationTry(virCheckpointEngine *engine,
                          const gchar *uuid,
                          guint flags,
                          GError **error)
{
    g_autoptr(virCheckpointOperation) operation = g_new0(virCheckpointOperation, 1);

    operation->engine = engine;
    virCheckpointEngineHold(engine);
    if (virCheckpointEngineStopping(engine)) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                            "the daemon is ending");
        return NULL;
    }
    if (!(operation->conn = virCheckpointEngineConnect(engine, error)) ||
        !virCheckpointEngineTakeStore(engine, operation->conn, error) ||
        !(operation->store =
              virCheckpointStoreDomainOpen(engine->store, uuid, error)) ||
        !(operation->view = virCheckpointDomainViewNew(operation->conn, uuid, error)))
        return NULL;
    if ((flags & VIR_CHECKPOINT_OPERATION_RUNNING) && !operation->view->running) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                            "domain is not running");
        return NULL;
    }
    if (!(flags & VIR_CHECKPOINT_OPERATION_OF_START) && !operation->view->running &&
        virCheckpointEngineIsStarting(engine, uuid)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY,
                    "domain '%s' is being started: try again", operation->view->name);
        return NULL;
    }
    if (!virCheckpointDomainViewIsStill(operation->view, error))
        return NULL;
    if (!(flags & VIR_CHECKPOINT_OPERATION_AWAY) &&
        virCheckpointLeavingIsAway(engine, operation->view)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "domain '%s' is off here and was last on another host: its "
                    "checkpoints can be changed there, or when it was started here",
                    operation->view->name);
        return NULL;
    }
    if (!(flags & VIR_CHECKPOINT_OPERATION_NO_SETTLE) &&
        !virCheckpointOperationSettle(operation, error))
        return NULL;
    return g_steal_pointer(&operation);
}

/* TRUE if waiting helps. */
static gboolean
virCheckpointOperationPasses(virCheckpointEngine *engine,
                             const gchar *uuid,
                             guint flags,
                             const GError *failed)
{
    if (g_error_matches(failed, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY))
        return virCheckpointEngineIsStarting(engine, uuid);
    return !(flags & VIR_CHECKPOINT_OPERATION_OF_JOB) &&
           g_error_matches(failed, VIR_CHECKPOINT_ERROR, VIR_ERR_BLOCK_COPY_ACTIVE);
}

virCheckpointOperation *
virCheckpointOperationBegin(virCheckpointEngine *engine,
                            const gchar *uuid,
                            guint flags,
                            GError **error)
{
    gint64 until = g_get_monotonic_time() + JOB_WAIT_MS * 1000;
    g_autoptr(GError) failed = NULL;
    virCheckpointOperation *operation;

    while (!(operation = virCheckpointOperationTry(engine, uuid, flags, &failed)) &&
           virCheckpointOperationPasses(engine, uuid, flags, failed) &&
           g_get_monotonic_time() < until &&
           !virCheckpointEngineSleep(engine, JOB_WAIT_STEP_MS))
        g_clear_error(&failed);
    if (!operation)
        g_propagate_error(error, g_steal_pointer(&failed));
    return operation;
}

void
virCheckpointOperationEnd(virCheckpointOperation *operation)
{
    if (!operation)
        return;
    if (operation->view)
        virCheckpointLeavingRanHere(operation->engine, operation->store,
                                    operation->view);
    virCheckpointDomainViewFree(operation->view);
    virCheckpointStoreDomainClose(operation->store);
    virCheckpointEngineDisconnect(operation->engine, operation->conn);
    virCheckpointEngineRelease(operation->engine);
    g_free(operation);
}

/* TRUE if the domain is another host's, or about to be. */
static gboolean
virCheckpointOperationIsAway(virCheckpointEngine *engine, const gchar *uuid)
{
    virConnectPtr conn = virCheckpointEngineConnect(engine, NULL);
    g_autoptr(virCheckpointDomainView) view =
        conn ? virCheckpointDomainViewNew(conn, uuid, NULL) : NULL;
    gboolean away = view && (!virCheckpointDomainViewIsStill(view, NULL) ||
                             virCheckpointLeavingIsAway(engine, view));

    g_clear_pointer(&view, virCheckpointDomainViewFree);
    virCheckpointEngineDisconnect(engine, conn);
    return away;
}

static gboolean
virCheckpointOperationSettleOnly(virCheckpointEngine *engine,
                                 const gchar *uuid,
                                 guint flags,
                                 GError **error)
{
    g_autofree gchar *folder =
        g_build_filename(virCheckpointStoreRoot(engine->store), uuid, NULL);
    g_autoptr(virCheckpointOperation) operation = NULL;
    g_autoptr(GError) failed = NULL;

    if (!g_file_test(folder, G_FILE_TEST_IS_DIR))
        return TRUE;
    operation = virCheckpointOperationBegin(engine, uuid, flags, &failed);
    if (operation)
        return TRUE;
    if (g_error_matches(failed, VIR_CHECKPOINT_LIBVIRT_ERROR, VIR_ERR_NO_DOMAIN))
        return virCheckpointLeavingVanished(engine, uuid, error);
    if (g_error_matches(failed, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID) &&
        virCheckpointOperationIsAway(engine, uuid))
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&failed));
    return FALSE;
}

gboolean
virCheckpointEngineSettleHere(virCheckpointEngine *engine,
                              const gchar *uuid,
                              GError **error)
{
    g_autoptr(virCheckpointOperation) operation = NULL;

    if (!virCheckpointOperationIsAway(engine, uuid))
        return virCheckpointOperationSettleOnly(
            engine, uuid, VIR_CHECKPOINT_OPERATION_OF_START, error);
    operation = virCheckpointOperationBegin(
        engine, uuid, VIR_CHECKPOINT_OPERATION_AWAY | VIR_CHECKPOINT_OPERATION_OF_START,
        error);
    return operation != NULL;
}

gboolean
virCheckpointEngineSettle(virCheckpointEngine *engine,
                          const gchar *uuid,
                          GError **error)
{
    return virCheckpointOperationSettleOnly(engine, uuid, 0, error);
}

gboolean
virCheckpointEngineTracks(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autofree gchar *folder =
        g_build_filename(virCheckpointStoreRoot(engine->store), uuid, NULL);

    return g_file_test(folder, G_FILE_TEST_IS_DIR);
}

gboolean
virCheckpointEngineMustSettle(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autofree gchar *folder =
        g_build_filename(virCheckpointStoreRoot(engine->store), uuid, NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(GDir) dir = g_dir_open(folder, 0, &error);
    const gchar *name = NULL;

    /* By name: a job that cannot be read is one, too. */
    while (dir && (name = g_dir_read_name(dir))) {
        if (g_str_has_suffix(name, VIR_CHECKPOINT_STORE_JOB_SUFFIX))
            return TRUE;
    }
    return (!dir && !g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOENT)) ||
           !virCheckpointRecoveryNoQemu(uuid, uuid, NULL);
}

void
virCheckpointEngineBeforeJob(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autoptr(GError) error = NULL;

    /* Settling parks. */
    virCheckpointEngineUnsettle(engine, uuid);
    if (!virCheckpointEngineSettle(engine, uuid, &error))
        g_info("domain %s is not settled before a job: %s", uuid, error->message);
}

gboolean
virCheckpointEngineAlone(virCheckpointEngine *engine,
                         const gchar *uuid,
                         void (*func)(gpointer data),
                         gpointer data)
{
    g_autoptr(GError) error = NULL;
    virCheckpointStoreDomain *slot =
        virCheckpointStoreDomainOpen(engine->store, uuid, &error);

    if (!slot) {
        g_info("domain %s: %s", uuid, error->message);
        return FALSE;
    }
    func(data);
    virCheckpointStoreDomainClose(slot);
    return TRUE;
}

gboolean
virCheckpointEngineGiveUp(virCheckpointEngine *engine,
                          const gchar *uuid,
                          GError **error)
{
    g_autoptr(virCheckpointOperation) operation =
        virCheckpointOperationBegin(engine, uuid, 0, error);
    g_autoptr(virCheckpointSegments) segments = NULL;

    if (!operation || !(segments = virCheckpointSegmentsNew(operation->store,
                                                            operation->view, error)))
        return FALSE;
    /* Tracking begins anew with the next look. */
    virCheckpointEngineUnsettle(engine, uuid);
    return virCheckpointSegmentsGiveUp(segments, error);
}
