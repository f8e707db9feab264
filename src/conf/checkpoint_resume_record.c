/*
 * checkpoint_resume_record.c: what the store keeps of a mirror that did not get through
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A copy that ended in its bulk pass leaves a target which is neither the disk of its
 * base checkpoint nor the one of the copy's moment, but the latter except for certain
 * granules.  Those are kept in a sidecar of their own; this record says which target
 * that is, how its file looked, and which sidecars had all changes up to that moment:
 * what a segment has besides them came later, or is copied once more.
 *
 * It is only a help: whoever cannot read it, or doubts it, copies everything since the
 * base checkpoint, which is right for such a target, too.
 */

#include "config.h"

#include "checkpoint_resume_record.h"

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_recordpriv.h"
#include "checkpoint_tree.h"

#include <string.h>

#define VIR_CHECKPOINT_STORE_RESUME_SUFFIX ".resume.xml"
#define VIR_CHECKPOINT_STORE_RESUME_MAX ((gsize)16 * 1024 * 1024)

virCheckpointResumeRecord *
virCheckpointResumeRecordNew(void)
{
    virCheckpointResumeRecord *record = g_new0(virCheckpointResumeRecord, 1);

    record->covered = g_ptr_array_new_with_free_func(g_free);
    return record;
}

void
virCheckpointResumeRecordFree(virCheckpointResumeRecord *record)
{
    if (!record)
        return;
    g_free(record->id);
    g_free(record->target);
    g_free(record->sinceId);
    g_free(record->destPath);
    g_free(record->stamp);
    g_free(record->rest);
    g_ptr_array_unref(record->covered);
    g_free(record);
}

gchar *
virCheckpointResumeRecordFormat(const virCheckpointResumeRecord *record)
{
    GString *buf = g_string_new("<virtcheckpointresume version='1'>\n");

    g_assert(record->id && record->target && record->sinceId && record->destPath &&
             record->stamp && record->rest);
    virCheckpointXmlAppend(buf,
                           "  <id>%s</id>\n  <disk>%s</disk>\n  <since id='%s'/>\n"
                           "  <dest path='%s' stamp='%s'/>\n  <rest file='%s'/>\n",
                           record->id, record->target, record->sinceId,
                           record->destPath, record->stamp, record->rest);
    virCheckpointXmlAppend(
        buf, "  <restBytes unit='bytes'>%" G_GUINT64_FORMAT "</restBytes>\n",
        record->restBytes);
    virCheckpointRecordFormatParts(buf, "covered", record->covered);
    g_string_append(buf, "</virtcheckpointresume>\n");
    return g_string_free(buf, FALSE);
}

static gboolean
virCheckpointResumeFileIsGood(const gchar *name)
{
    return name && *name && *name != '.' && !strchr(name, '/') &&
           g_str_has_suffix(name, ".qcow2");
}

virCheckpointResumeRecord *
virCheckpointResumeRecordParse(const gchar *xml, GError **error)
{
    g_autoptr(xmlDoc) doc = virCheckpointRecordOpen(xml, "virtcheckpointresume", error);
    g_autoptr(virCheckpointResumeRecord) record = virCheckpointResumeRecordNew();
    xmlNode *root = NULL;

    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    g_ptr_array_unref(record->covered);
    record->covered = virCheckpointRecordParts(root, "./covered");
    record->id = virCheckpointXmlString(root, "./id");
    record->target = virCheckpointXmlString(root, "./disk");
    record->sinceId = virCheckpointXmlString(root, "./since/@id");
    record->destPath = virCheckpointXmlString(root, "./dest/@path");
    record->stamp = virCheckpointXmlString(root, "./dest/@stamp");
    record->rest = virCheckpointXmlString(root, "./rest/@file");
    if (!virCheckpointRecordIdIsGood(record->id) ||
        !virCheckpointRecordIdIsGood(record->sinceId) || !record->target ||
        !record->destPath || !record->stamp ||
        !virCheckpointResumeFileIsGood(record->rest) ||
        !virCheckpointXmlUint64(root, "./restBytes", &record->restBytes)) {
        virCheckpointRecordFail(error, "part of the record of a rest");
        return NULL;
    }
    return g_steal_pointer(&record);
}

/* The store's part */

static virCheckpointResumeRecord *
virCheckpointStoreReadResume(virCheckpointStoreDomain *domain, const gchar *name)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(domain, name, NULL);
    g_autofree gchar *text = NULL;
    g_autoptr(virCheckpointResumeRecord) record = NULL;
    g_autoptr(GError) error = NULL;

    if (path)
        text = virCheckpointFileRead(path, VIR_CHECKPOINT_STORE_RESUME_MAX, &error);
    if (text)
        record = virCheckpointResumeRecordParse(text, &error);
    if (record && g_str_has_prefix(name, record->id))
        return g_steal_pointer(&record);
    g_info("'%s' is not used: %s", name, error ? error->message : "another's name");
    return NULL;
}

GPtrArray *
virCheckpointStoreListResumes(virCheckpointStoreDomain *domain)
{
    g_autofree gchar *lock = virCheckpointStoreDomainPath(domain, "lock", NULL);
    g_autofree gchar *folder = lock ? g_path_get_dirname(lock) : NULL;
    g_autoptr(GDir) dir = folder ? g_dir_open(folder, 0, NULL) : NULL;
    GPtrArray *records =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointResumeRecordFree);
    const gchar *name;

    while (dir && (name = g_dir_read_name(dir))) {
        virCheckpointResumeRecord *record = NULL;

        if (g_str_has_suffix(name, VIR_CHECKPOINT_STORE_RESUME_SUFFIX))
            record = virCheckpointStoreReadResume(domain, name);
        if (record)
            g_ptr_array_add(records, record);
    }
    return records;
}

gboolean
virCheckpointStoreSaveResume(virCheckpointStoreDomain *domain,
                             const virCheckpointResumeRecord *record,
                             GError **error)
{
    g_autofree gchar *name =
        g_strconcat(record->id, VIR_CHECKPOINT_STORE_RESUME_SUFFIX, NULL);
    g_autofree gchar *path = virCheckpointStoreDomainPath(domain, name, error);
    g_autofree gchar *text = virCheckpointResumeRecordFormat(record);
    g_autoptr(GPtrArray) others = virCheckpointStoreListResumes(domain);
    guint i;

    for (i = 0; i < others->len; i++) {
        const virCheckpointResumeRecord *other = g_ptr_array_index(others, i);

        if (g_str_equal(other->target, record->target) &&
            g_str_equal(other->destPath, record->destPath) &&
            !g_str_equal(other->id, record->id) &&
            !virCheckpointStoreRemoveResume(domain, other, error))
            return FALSE;
    }
    return path && virCheckpointFaultPoint("resume/before-save", error) &&
           virCheckpointFileWrite(path, text, error) &&
           virCheckpointFaultPoint("resume/saved", error);
}

gboolean
virCheckpointStoreRemoveResume(virCheckpointStoreDomain *domain,
                               const virCheckpointResumeRecord *record,
                               GError **error)
{
    g_autofree gchar *name =
        g_strconcat(record->id, VIR_CHECKPOINT_STORE_RESUME_SUFFIX, NULL);
    g_autofree gchar *path = virCheckpointStoreDomainPath(domain, name, error);
    g_autofree gchar *rest = virCheckpointStoreDomainPath(domain, record->rest, error);

    return path && rest && virCheckpointFileRemove(path, error) &&
           virCheckpointFaultPoint("resume/removed", error) &&
           virCheckpointFileRemove(rest, error);
}

gboolean
virCheckpointStoreSiftResumes(virCheckpointStoreDomain *domain,
                              GPtrArray *records,
                              GHashTable *used,
                              GError **error)
{
    g_autoptr(GPtrArray) resumes = virCheckpointStoreListResumes(domain);
    guint i;

    for (i = 0; i < resumes->len; i++) {
        const virCheckpointResumeRecord *resume = g_ptr_array_index(resumes, i);

        if (virCheckpointTreeById(records, resume->sinceId))
            g_hash_table_add(used, g_strdup(resume->rest));
        else if (!virCheckpointStoreRemoveResume(domain, resume, error))
            return FALSE;
    }
    return TRUE;
}
