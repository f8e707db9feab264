/*
 * checkpoint_backup_record.c: what the store keeps of a domain's running backup
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Libvirt runs a backup; of it we keep under which names it knows checkpoints of ours
 * for the length of the call, and which checkpoint was made with it.  The record is
 * written before anything is done, so whoever finds it in state "beginning" knows all
 * names that have to be looked for.  While the job runs it serves to show clients the
 * names that they gave, and to take the checkpoint of a failed push back.
 */

#include "config.h"

#include "checkpoint_backup_record.h"

#include "checkpoint_error.h"
#include "checkpoint_record.h"
#include "checkpoint_recordpriv.h"

#include <string.h>

static const gchar *const virCheckpointBackupStates[] = {
    [VIR_CHECKPOINT_BACKUP_BEGINNING] = "beginning",
    [VIR_CHECKPOINT_BACKUP_RUNNING] = "running",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointBackupStates) == VIR_CHECKPOINT_BACKUP_LAST);

const gchar *
virCheckpointBackupStateToString(virCheckpointBackupState state)
{
    g_assert(state < VIR_CHECKPOINT_BACKUP_LAST);
    return virCheckpointBackupStates[state];
}

static void
virCheckpointBackupNameFree(gpointer opaque)
{
    virCheckpointBackupName *name = opaque;

    g_free(name->ours);
    g_free(name->given);
    g_free(name);
}

virCheckpointBackupRecord *
virCheckpointBackupRecordNew(void)
{
    virCheckpointBackupRecord *record = g_new0(virCheckpointBackupRecord, 1);

    record->names = g_ptr_array_new_with_free_func(virCheckpointBackupNameFree);
    return record;
}

void
virCheckpointBackupRecordFree(virCheckpointBackupRecord *record)
{
    if (!record)
        return;
    g_free(record->id);
    g_free(record->checkpointId);
    g_free(record->description);
    g_ptr_array_unref(record->names);
    g_free(record);
}

void
virCheckpointBackupRecordAddName(virCheckpointBackupRecord *record,
                                 const gchar *ours,
                                 const gchar *given)
{
    virCheckpointBackupName *name = g_new0(virCheckpointBackupName, 1);

    name->ours = g_strdup(ours);
    name->given = g_strdup(given);
    g_ptr_array_add(record->names, name);
}

gboolean
virCheckpointBackupIsOurName(const gchar *name)
{
    return g_str_has_prefix(name, VIR_CHECKPOINT_BITMAP_PREFIX) &&
           virCheckpointRecordIdIsGood(name + strlen(VIR_CHECKPOINT_BITMAP_PREFIX));
}

gchar *
virCheckpointBackupTranslate(const virCheckpointBackupRecord *record, const gchar *text)
{
    gchar *out = g_strdup(text);
    guint i;

    for (i = 0; i < record->names->len; i++) {
        const virCheckpointBackupName *name = g_ptr_array_index(record->names, i);
        g_auto(GStrv) parts = g_strsplit(out, name->ours, -1);

        g_free(out);
        out = g_strjoinv(name->given, parts);
    }
    return out;
}

gchar *
virCheckpointBackupRecordFormat(const virCheckpointBackupRecord *record)
{
    GString *buf = g_string_new("<virtcheckpointbackup version='1'>\n");
    guint i;

    g_assert(record->id && record->state < VIR_CHECKPOINT_BACKUP_LAST);

    virCheckpointXmlAppend(buf, "  <id>%s</id>\n  <state>%s</state>\n", record->id,
                           virCheckpointBackupStates[record->state]);
    if (record->push)
        g_string_append(buf, "  <push/>\n");
    if (record->checkpointId)
        virCheckpointXmlAppend(buf, "  <checkpoint id='%s'/>\n", record->checkpointId);
    for (i = 0; i < record->names->len; i++) {
        const virCheckpointBackupName *name = g_ptr_array_index(record->names, i);

        virCheckpointXmlAppend(buf, "  <name ours='%s' given='%s'/>\n", name->ours,
                               name->given);
    }
    if (record->description)
        virCheckpointRecordFormatText(buf, "description", record->description);
    g_string_append(buf, "</virtcheckpointbackup>\n");
    return g_string_free(buf, FALSE);
}

static gboolean
virCheckpointBackupParseNames(virCheckpointBackupRecord *record,
                              xmlNode *root,
                              GError **error)
{
    g_autoptr(GPtrArray) nodes = virCheckpointXmlNodes(root, "./name");
    guint i;

    for (i = 0; nodes && i < nodes->len; i++) {
        g_autofree gchar *ours =
            virCheckpointXmlString(g_ptr_array_index(nodes, i), "./@ours");
        g_autofree gchar *given =
            virCheckpointXmlString(g_ptr_array_index(nodes, i), "./@given");

        if (!ours || !given || !virCheckpointBackupIsOurName(ours))
            return virCheckpointRecordFail(error, "name");
        virCheckpointBackupRecordAddName(record, ours, given);
    }
    return TRUE;
}

virCheckpointBackupRecord *
virCheckpointBackupRecordParse(const gchar *xml, GError **error)
{
    g_autoptr(xmlDoc) doc = virCheckpointRecordOpen(xml, "virtcheckpointbackup", error);
    g_autoptr(virCheckpointBackupRecord) record = virCheckpointBackupRecordNew();
    g_autofree gchar *state = NULL;
    xmlNode *root;
    gint number;

    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    record->id = virCheckpointXmlString(root, "./id");
    record->checkpointId = virCheckpointXmlString(root, "./checkpoint/@id");
    record->description = virCheckpointXmlString(root, "./description");
    record->push = virCheckpointXmlNode(root, "./push") != NULL;
    state = virCheckpointXmlString(root, "./state");
    number = virCheckpointRecordEnum(virCheckpointBackupStates,
                                     VIR_CHECKPOINT_BACKUP_LAST, state);
    if (number < 0 || !virCheckpointRecordIdIsGood(record->id) ||
        (record->checkpointId && !virCheckpointRecordIdIsGood(record->checkpointId))) {
        virCheckpointRecordFail(error, "id or state");
        return NULL;
    }
    record->state = (virCheckpointBackupState)number;
    if (!virCheckpointBackupParseNames(record, root, error))
        return NULL;
    return g_steal_pointer(&record);
}
