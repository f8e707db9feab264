/*
 * checkpoint_compact.c: many sidecars of a segment into one
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: deleting a checkpoint hands its sidecars to the previous segment, so sidecars
 * would add up.  After a deletion each segment's are merged into a new one
 * (checkpoint_sidecar_unite.c).  Then the record names that one instead, in one write,
 * and the old files go.  A crash anywhere leaves the record with the one set or the
 * other, and files that no record names, which settling collects.
 *
 * Sidecars of different sizes (the disk was resized in between) stay apart, and so do
 * those of a segment by which a copy that was cut short can go on
 * (checkpoint_mirror_resume.c).
 */

#include "config.h"

#include <string.h>

#include "checkpoint_compact.h"
#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_mirror_resume.h"

/* Bitmaps merge only between disks of equal size. */
static gboolean
virCheckpointCompactIsEqual(GArray *infos)
{
    guint64 sizeBytes = g_array_index(infos, virCheckpointSidecarInfo, 0).sizeBytes;
    guint i;

    for (i = 1; i < infos->len; i++) {
        if (g_array_index(infos, virCheckpointSidecarInfo, i).sizeBytes != sizeBytes)
            return FALSE;
    }
    return TRUE;
}

/* A file name with the same id as the first and a number that is free. */
static gchar *
virCheckpointCompactName(virCheckpointStoreDomain *store,
                         const gchar *first,
                         GError **error)
{
    const gchar *dot = strchr(first, '.');
    gint idLength = dot ? (gint)(dot - first) : (gint)strlen(first);
    guint n;

    for (n = 1;; n++) {
        g_autofree gchar *name = g_strdup_printf("%.*s.%u.qcow2", idLength, first, n);
        g_autofree gchar *path = virCheckpointStoreDomainPath(store, name, error);

        if (!path)
            return NULL;
        if (!g_file_test(path, G_FILE_TEST_EXISTS))
            return g_steal_pointer(&name);
    }
}

static gboolean
virCheckpointCompactSegment(virCheckpointStoreDomain *store,
                            virCheckpointRecord *record,
                            virCheckpointSegment *segment,
                            GError **error)
{
    g_autofree gchar *name =
        virCheckpointCompactName(store, g_ptr_array_index(segment->sidecars, 0), error);
    g_autoptr(GArray) infos = NULL;

    if (!name ||
        !(infos = virCheckpointSidecarReadAll(store, segment->sidecars, error)))
        return FALSE;
    if (!virCheckpointCompactIsEqual(infos))
        return TRUE;
    if (!virCheckpointSidecarUnite(
            store, segment->sidecars, infos,
            g_array_index(infos, virCheckpointSidecarInfo, 0).sizeBytes, name, error) ||
        !virCheckpointFaultPoint("compact/written", error))
        return FALSE;
    g_ptr_array_set_size(segment->sidecars, 0);
    g_ptr_array_add(segment->sidecars, g_steal_pointer(&name));
    return virCheckpointStoreSave(store, record, error) &&
           virCheckpointFaultPoint("compact/saved", error);
}

/* A copy that can be taken up again tells by its sidecars what a segment had then and
 * what was added since. */
static gboolean
virCheckpointCompactIsCovered(GPtrArray *resumes, const virCheckpointSegment *segment)
{
    guint i;
    guint j;
    guint k;

    for (i = 0; i < resumes->len; i++) {
        const virCheckpointResumeRecord *resume = g_ptr_array_index(resumes, i);

        for (j = 0; j < resume->covered->len; j++) {
            const gchar *part = g_ptr_array_index(resume->covered, j);

            for (k = 0; k < segment->sidecars->len; k++) {
                const gchar *file = g_ptr_array_index(segment->sidecars, k);

                if (g_str_has_prefix(part, file) && part[strlen(file)] == '@')
                    return TRUE;
            }
        }
    }
    return FALSE;
}

gboolean
virCheckpointCompactDomain(virCheckpointStoreDomain *store, GError **error)
{
    g_autoptr(GPtrArray) records = virCheckpointStoreList(store, error);
    g_autoptr(GPtrArray) resumes = virCheckpointStoreListResumes(store);
    gboolean any = FALSE;
    gboolean all = TRUE;
    guint i;
    guint j;

    virCheckpointMirrorResumeSift(store, resumes);

    for (i = 0; records && i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);

        if (record->state != VIR_CHECKPOINT_RECORD_READY)
            continue;
        for (j = 0; j < record->segments->len; j++) {
            virCheckpointSegment *segment = g_ptr_array_index(record->segments, j);

            if (segment->sidecars->len < 2 ||
                virCheckpointCompactIsCovered(resumes, segment))
                continue;
            any = TRUE;
            if (virCheckpointCompactSegment(store, record, segment, all ? error : NULL))
                continue;
            if (all)
                g_prefix_error(error, "merge sidecars of '%s': ", record->def->name);
            all = FALSE;
        }
    }
    /* One that failed has left a file, maybe, and keeps no other from going. */
    if (any && !virCheckpointStoreCollect(store, all ? error : NULL))
        all = FALSE;
    return records && all;
}

static void
virCheckpointCompactTask(virCheckpointEngine *engine, gpointer data)
{
    const gchar *uuid = data;
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointStoreDomain) store = NULL;

    if (virCheckpointEngineStopping(engine))
        return;
    store = virCheckpointStoreDomainOpen(engine->store, uuid, &error);
    if (store && virCheckpointCompactDomain(store, &error))
        return;
    /* Files that no record names may be left. */
    virCheckpointEngineSettleLater(engine, uuid);
    g_info("domain %s: %s", uuid, error->message);
}

void
virCheckpointCompactLater(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointEngineSpawn(engine, virCheckpointCompactTask, g_strdup(uuid), g_free);
}
