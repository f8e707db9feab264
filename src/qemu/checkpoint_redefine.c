/*
 * checkpoint_redefine.c: a client defines a checkpoint that exists
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: clients that keep the XML of checkpoints themselves hand it back before each
 * backup, oldest first, because libvirt forgets it with the domain.  We do not forget:
 * the record decides which disks are covered, where the bits are and whose child a
 * checkpoint is; of the XML the description and the time are taken.  So the same
 * checkpoint again changes nothing, whatever happened in between.
 *
 * A name that is not ours is libvirt's, unless another store has that checkpoint
 * (checkpoint_elsewhere.c).
 *
 * What the XML says wrongly is refused in libvirt's words.  With validation every part
 * of the changes since the checkpoint is looked at, disk by disk.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_elsewhere.h"
#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_leave.h"
#include "checkpoint_offline.h"
#include "checkpoint_redefine.h"
#include "checkpoint_xml.h"

/* The bits of a child of ours that is libvirt's are in the images. */
static gboolean
virCheckpointRedefineCheckBits(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const virCheckpointDef *def,
                               GPtrArray *records,
                               GError **error)
{
    g_autoptr(virCheckpointOperation) operation = NULL;
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GPtrArray) targets = g_ptr_array_new();
    guint i;

    if (!def->parent || !virCheckpointTreeByName(records, def->parent))
        return TRUE;
    if (!(operation = virCheckpointOperationBegin(engine, uuid, 0, error)) ||
        !(segments =
              virCheckpointSegmentsNew(operation->store, operation->view, error)))
        return FALSE;
    for (i = 0; def->disks && i < def->disks->len; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);

        if (disk->type != VIR_CHECKPOINT_DISK_NONE &&
            virCheckpointDomainFindDisk(operation->view->disks, disk->name))
            g_ptr_array_add(targets, disk->name);
    }
    return (targets->len == 0 || virCheckpointSegmentsOpen(segments, targets, error)) &&
           virCheckpointLeaveFound(segments, def, error);
}

/* The <domain> of the XML, if it has one, is this domain, and has the disks. */
static gboolean
virCheckpointRedefineCheckDomain(virCheckpointDef *def,
                                 const gchar *uuid,
                                 GError **error)
{
    g_autoptr(xmlDoc) doc = NULL;
    g_autoptr(GPtrArray) disks = NULL;
    g_autoptr(GPtrArray) known = g_ptr_array_new_with_free_func(g_free);
    g_autofree gchar *given = NULL;
    guint i;

    if (!def->domain)
        return TRUE;
    if (!(doc = virCheckpointXmlParse(def->domain, "(domain)", "domain", error)) ||
        !(disks = virCheckpointDomainParseDisks(def->domain, error)))
        return FALSE;
    given = virCheckpointXmlString(xmlDocGetRootElement(doc), "string(./uuid)");
    if (given && g_ascii_strcasecmp(given, uuid) != 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "definition for checkpoint %s must use uuid %s", def->name, uuid);
        return FALSE;
    }
    for (i = 0; i < disks->len; i++) {
        const virCheckpointDisk *from = g_ptr_array_index(disks, i);
        virCheckpointDomainDisk *disk = g_new0(virCheckpointDomainDisk, 1);

        disk->target = from->target;
        disk->source = from->source;
        disk->readOnly = from->readOnly;
        disk->empty = from->empty;
        disk->format = from->format;
        g_ptr_array_add(known, disk);
    }
    return virCheckpointDefAlignDisks(def, known, TRUE, error);
}

/* It is taken if another store has it.  Who cannot look leaves it to libvirt. */
static gboolean
virCheckpointRedefineTake(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const virCheckpointDef *given,
                          gboolean validate,
                          gboolean *taken,
                          GError **error)
{
    g_autoptr(virCheckpointDef) def = virCheckpointDefCopy(given);
    g_autoptr(GError) unseen = NULL;
    g_autoptr(virCheckpointOperation) operation =
        virCheckpointOperationBegin(engine, uuid, 0, &unseen);
    g_autoptr(GPtrArray) disks =
        operation ? virCheckpointEngineDisks(operation->view) : NULL;

    *taken = FALSE;
    if (operation &&
        (def->domain ? virCheckpointRedefineCheckDomain(def, uuid, &unseen)
                     : virCheckpointDefAlignDisks(def, disks, TRUE, &unseen)))
        return virCheckpointElsewhereTake(operation, def, validate, taken, error);
    g_debug("domain=%s checkpoint=%s redefined as libvirt has it: %s", uuid, def->name,
            unseen->message);
    return TRUE;
}

gboolean
virCheckpointRedefineNew(virCheckpointEngine *engine,
                         const gchar *uuid,
                         const virCheckpointDef *def,
                         gboolean validate,
                         GPtrArray *records,
                         gboolean *taken,
                         GError **error)
{
    return virCheckpointRedefineTake(engine, uuid, def, validate, taken, error) &&
           (*taken ||
            virCheckpointRedefineCheckBits(engine, uuid, def, records, error));
}

/* Every disk that the XML covers is one that the record covers, wholly. */
static gboolean
virCheckpointRedefineValidate(virCheckpointOperation *operation,
                              const virCheckpointDef *def,
                              const gchar *id,
                              GError **error)
{
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsNew(operation->store, operation->view, error);
    g_autoptr(GPtrArray) targets = NULL;
    const virCheckpointRecord *record;
    guint i;

    if (!segments)
        return FALSE;
    targets = virCheckpointOfflineTargets(virCheckpointTreeById(segments->records, id));
    if (!virCheckpointSegmentsOpen(segments, targets, error) ||
        !virCheckpointSegmentsEnsure(segments, error))
        return FALSE;
    record = virCheckpointTreeById(segments->records, id);
    for (i = 0; record && def->disks && i < def->disks->len; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);

        if (disk->type == VIR_CHECKPOINT_DISK_NONE)
            continue;
        if (!virCheckpointRecordSegment(record, disk->name)) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CHECKPOINT_INCONSISTENT,
                        "missing or broken bitmap '%s' for disk '%s'",
                        disk->bitmap ? disk->bitmap : def->name, disk->name);
            return FALSE;
        }
        if (!virCheckpointSegmentsValidate(segments, record, disk->name, error))
            return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointRedefine(virCheckpointOperation *operation,
                      virCheckpointDef *def,
                      gboolean validate,
                      GError **error)
{
    g_autoptr(GPtrArray) records = virCheckpointStoreList(operation->store, error);
    virCheckpointRecord *record;

    if (!records ||
        !virCheckpointTreeCheckParent(records, def->name, def->parent, error))
        return FALSE;
    record = virCheckpointTreeByName(records, def->name);
    if (!record) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                    "no domain checkpoint with matching name '%s'", def->name);
        return FALSE;
    }
    if (!virCheckpointRedefineCheckDomain(def, operation->view->uuid, error))
        return FALSE;
    if (validate && !virCheckpointRedefineValidate(operation, def, record->id, error))
        return FALSE;
    if (g_strcmp0(record->def->description, def->description) == 0 &&
        record->def->creationTime == def->creationTime)
        return TRUE;
    g_free(record->def->description);
    record->def->description = g_strdup(def->description);
    record->def->creationTime = def->creationTime;
    return virCheckpointStoreSave(operation->store, record, error);
}
