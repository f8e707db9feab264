/*
 * checkpoint_heal.c: lost changes, found again by comparing with a replica
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory (docs/internals/health.md): segment L of a disk is lost, the changes from one
 * checkpoint to the next.  A replica holds the disk as of checkpoint R, R at or before
 * L's.  What differs now between disk and replica, together with the segments from R to
 * L, covers every block that a copy since any checkpoint needs because of L; so that
 * becomes the lost segment.
 *
 * The guest runs meanwhile.  Tracking has begun anew before, so whatever it writes is
 * in the active bitmap, and what is read of such a block does not matter.  Blocks that
 * it does not write are read from the image, past QEMU's locks: what was written before
 * tracking began has to be in the image by then, so the disk is flushed first.  Of the
 * image's format only what concerns written blocks changes, but in whole clusters:
 * where those are larger than the bitmap's grain, what was written is taken a cluster
 * at a time in addition.
 *
 * The domain's slot is held to begin and to end, not in between.  Nothing is recorded
 * before the end: a heal that dies is begun again.  Whoever finds changes lost in
 * between says so here (virCheckpointHealSpoil), and the heal fails.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_heal.h"
#include "checkpoint_healpriv.h"

static const gchar *const virCheckpointHealStates[] = {
    [VIR_CHECKPOINT_HEAL_RUNNING] = "running",
    [VIR_CHECKPOINT_HEAL_COMPLETED] = "completed",
    [VIR_CHECKPOINT_HEAL_FAILED] = "failed",
    [VIR_CHECKPOINT_HEAL_CANCELLED] = "cancelled",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointHealStates) == VIR_CHECKPOINT_HEAL_LAST);

/* "uuid/target" -> virCheckpointHeal*: the last of each disk. */
static GMutex virCheckpointHealLock;
static GHashTable *virCheckpointHeals;

static virCheckpointHeal *
virCheckpointHealRef(virCheckpointHeal *heal)
{
    g_atomic_int_inc(&heal->refs);
    return heal;
}

void
virCheckpointHealUnref(virCheckpointHeal *heal)
{
    if (!heal || !g_atomic_int_dec_and_test(&heal->refs))
        return;
    virCheckpointHealStorageFree(heal->storage);
    g_free(heal->uuid);
    g_free(heal->target);
    g_free(heal->baseId);
    g_free(heal->replica);
    g_free(heal->stamp);
    g_clear_pointer(&heal->lostIds, g_ptr_array_unref);
    g_free(heal->error);
    g_free(heal);
}

static gchar *
virCheckpointHealKey(const gchar *uuid, const gchar *target)
{
    return g_strdup_printf("%s/%s", uuid, target);
}

/* Returns: (transfer full) (nullable). */
static virCheckpointHeal *
virCheckpointHealFind(const gchar *uuid, const gchar *target)
{
    g_autofree gchar *key = virCheckpointHealKey(uuid, target);
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHealLock);
    virCheckpointHeal *heal =
        virCheckpointHeals ? g_hash_table_lookup(virCheckpointHeals, key) : NULL;

    return heal ? virCheckpointHealRef(heal) : NULL;
}

/* FALSE if one runs. */
static gboolean
virCheckpointHealRegister(virCheckpointHeal *heal, GError **error)
{
    gchar *key = virCheckpointHealKey(heal->uuid, heal->target);
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHealLock);
    const virCheckpointHeal *other;

    if (!virCheckpointHeals)
        virCheckpointHeals = g_hash_table_new_full(
            g_str_hash, g_str_equal, g_free, (GDestroyNotify)virCheckpointHealUnref);
    other = g_hash_table_lookup(virCheckpointHeals, key);
    if (other && g_atomic_int_get(&other->state) == VIR_CHECKPOINT_HEAL_RUNNING) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "disk '%s' is being healed already", heal->target);
        g_free(key);
        return FALSE;
    }
    g_hash_table_replace(virCheckpointHeals, key, virCheckpointHealRef(heal));
    return TRUE;
}

void
virCheckpointHealSpoil(const gchar *uuid, const gchar *target)
{
    virCheckpointHeal *heal = virCheckpointHealFind(uuid, target);

    if (heal)
        g_atomic_int_set(&heal->spoiled, 1);
    virCheckpointHealUnref(heal);
}

void
virCheckpointHealInterrupt(void)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHealLock);
    GHashTableIter iter;
    gpointer heal;

    if (!virCheckpointHeals)
        return;
    g_hash_table_iter_init(&iter, virCheckpointHeals);
    while (g_hash_table_iter_next(&iter, NULL, &heal))
        g_atomic_int_set(&((virCheckpointHeal *)heal)->cancelled, 1);
}

/* The state last: who sees it sees the rest. */
static void
virCheckpointHealEnded(virCheckpointHeal *heal, const GError *failed)
{
    virCheckpointHealState state = VIR_CHECKPOINT_HEAL_COMPLETED;

    if (failed) {
        state = g_atomic_int_get(&heal->cancelled) ? VIR_CHECKPOINT_HEAL_CANCELLED
                                                   : VIR_CHECKPOINT_HEAL_FAILED;
        g_mutex_lock(&virCheckpointHealLock);
        heal->error = g_strdup_printf("disk '%s' was not healed: %s", heal->target,
                                      failed->message);
        g_mutex_unlock(&virCheckpointHealLock);
        g_warning("domain %s: %s", heal->uuid, heal->error);
    } else {
        g_info("domain %s: disk '%s' was healed", heal->uuid, heal->target);
    }
    g_atomic_int_set(&heal->state, (gint)state);
}

static void
virCheckpointHealTask(virCheckpointEngine *engine, gpointer data)
{
    virCheckpointHeal *heal = data;
    g_autoptr(GError) error = NULL;
    g_autoptr(GArray) found = NULL;
    guint i;

    if (virCheckpointFaultPoint("heal/begun", &error))
        found = virCheckpointScanRun(heal->storage->scan, &heal->cancelled,
                                     &heal->doneMib, &error);
    for (i = 0; found && i < found->len; i++)
        heal->differing += g_array_index(found, virCheckpointRange, i).length;
    if (found && virCheckpointFaultPoint("heal/scanned", &error) &&
        virCheckpointScanMark(heal->storage->scan, found, &error) &&
        virCheckpointHealStorageFreeze(heal->storage, &error))
        virCheckpointHealFinish(engine, heal, &error);
    /* Images first: who sees the end may use them. */
    g_clear_pointer(&heal->storage, virCheckpointHealStorageFree);
    virCheckpointHealEnded(heal, error);
    virCheckpointEngineRelease(engine);
}

gboolean
virCheckpointEngineHeal(virCheckpointEngine *engine,
                        const gchar *uuid,
                        const virCheckpointHealRequest *request,
                        GError **error)
{
    virCheckpointHeal *heal = g_new0(virCheckpointHeal, 1);
    gboolean begun;

    heal->refs = 1;
    heal->uuid = g_strdup(uuid);
    /* Registered by then, so that a loss while it begins spoils it. */
    begun =
        virCheckpointHealBegin(engine, heal, request, virCheckpointHealRegister, error);
    if (begun) {
        virCheckpointEngineHold(engine);
        virCheckpointEngineSpawn(engine, virCheckpointHealTask,
                                 virCheckpointHealRef(heal),
                                 (GDestroyNotify)virCheckpointHealUnref);
    } else {
        g_clear_pointer(&heal->storage, virCheckpointHealStorageFree);
        g_atomic_int_set(&heal->state, VIR_CHECKPOINT_HEAL_FAILED);
    }
    virCheckpointHealUnref(heal);
    return begun;
}

static virCheckpointHeal *
virCheckpointHealNeed(const gchar *uuid, const gchar *disk, GError **error)
{
    virCheckpointHeal *heal = virCheckpointHealFind(uuid, disk);

    if (!heal)
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "disk '%s' was not being healed since virtcheckpointd started",
                    disk);
    return heal;
}

virCheckpointJson *
virCheckpointEngineHealQuery(virCheckpointEngine *engine,
                             const gchar *uuid,
                             const gchar *disk,
                             GError **error)
{
    virCheckpointHeal *heal = virCheckpointHealNeed(uuid, disk, error);
    virCheckpointJson *answer;
    guint64 done;
    gint state;

    if (!heal)
        return NULL;
    state = g_atomic_int_get(&heal->state);
    done = (guint64)g_atomic_int_get(&heal->doneMib) << 20;
    g_mutex_lock(&virCheckpointHealLock);
    answer = virCheckpointJsonBuild(
        "s:disk", heal->target, "s:state", virCheckpointHealStates[state], "u:done",
        state == VIR_CHECKPOINT_HEAL_COMPLETED ? heal->sizeBytes
                                               : MIN(done, heal->sizeBytes),
        "u:total", heal->sizeBytes, "u:differing",
        state == VIR_CHECKPOINT_HEAL_RUNNING ? (guint64)0 : heal->differing, "s:error",
        heal->error, NULL);
    g_mutex_unlock(&virCheckpointHealLock);
    virCheckpointHealUnref(heal);
    return answer;
}

gboolean
virCheckpointEngineHealCancel(virCheckpointEngine *engine,
                              const gchar *uuid,
                              const gchar *disk,
                              GError **error)
{
    virCheckpointHeal *heal = virCheckpointHealNeed(uuid, disk, error);

    if (!heal)
        return FALSE;
    g_atomic_int_set(&heal->cancelled, 1);
    virCheckpointHealUnref(heal);
    return TRUE;
}
