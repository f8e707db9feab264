/*
 * checkpoint_mirror_request.c: what a mirror is asked for, and the XML it asks for
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The pure part of the mirror: requests are judged and XML is made from text alone,
 * so that tests need no guest.  A rule of docs/internals/mirror.md lives here: a
 * snapshot lists every disk of the domain.  Destinations are
 * checkpoint_mirror_dest.c's.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_mirror_request.h"
#include "checkpoint_xml.h"

static const guint virCheckpointMirrorFlags =
    VIR_DOMAIN_BLOCK_COPY_SHALLOW | VIR_DOMAIN_BLOCK_COPY_REUSE_EXT |
    VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB | VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES;

static gboolean
virCheckpointMirrorRequestCheckFlags(const virCheckpointMirrorRequest *request,
                                     GError **error)
{
    const gchar *why = NULL;

    if (request->flags & ~virCheckpointMirrorFlags) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "unsupported flags (0x%x) in function virDomainBlockCopy",
                    request->flags & ~virCheckpointMirrorFlags);
        return FALSE;
    }
    if (request->verify && !request->finish)
        why = "parameter 'verify' requires 'finish': a source that goes on changing"
              " cannot be compared";
    else if (request->finish && (request->pivot || request->endCheckpoints))
        why =
            "parameter 'finish' cannot be combined with 'pivot' and 'end-checkpoints':"
            " there is no mirror phase";
    else if (request->checkpoint && request->endCheckpoints)
        why = "parameter 'end-checkpoints' cannot be combined with 'checkpoint'";
    else if (request->bitmap && !(request->flags & VIR_DOMAIN_BLOCK_COPY_REUSE_EXT))
        why = "parameter 'bitmap' requires flag VIR_DOMAIN_BLOCK_COPY_REUSE_EXT: the"
              " destination must exist and hold the disk as of that checkpoint";
    else if (request->flags & VIR_DOMAIN_BLOCK_COPY_SHALLOW)
        why = "flag VIR_DOMAIN_BLOCK_COPY_SHALLOW cannot be combined with parameters"
              " 'bitmap' and 'checkpoint'";
    else if (request->finish &&
             (request->flags & VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES))
        why = "flag VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES cannot be combined with"
              " parameter 'finish': there is no mirror phase";
    else if (request->finish && (request->granularity || request->bufSize))
        why = "parameters 'granularity' and 'buf-size' cannot be combined with"
              " parameter 'finish': there is no mirror phase";
    if (!why)
        return TRUE;
    g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG, why);
    return FALSE;
}

gboolean
virCheckpointMirrorRequestCheck(const virCheckpointMirrorRequest *request,
                                GError **error)
{
    if (!request->bitmap && !request->checkpoint) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                            "parameter 'finish' requires 'bitmap' or 'checkpoint'");
        return FALSE;
    }
    if (!virCheckpointMirrorRequestCheckFlags(request, error))
        return FALSE;
    if (request->granularity & (request->granularity - 1)) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                            "granularity must be power of 2");
        return FALSE;
    }
    /* QEMU's limits; the mirror that they are for begins after the bulk pass. */
    if (request->granularity &&
        (request->granularity < 512 || request->granularity > 64 * 1024 * 1024)) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                            "granularity must be at least 512 and at most 64 MiB");
        return FALSE;
    }
    if (request->bufSize > G_MAXINT64) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OVERFLOW,
                    "buffer size must be less than %" G_GINT64_FORMAT, G_MAXINT64);
        return FALSE;
    }
    if (request->checkpoint && !virCheckpointDefCheckName(request->checkpoint, error))
        return FALSE;
    return TRUE;
}

gchar *
virCheckpointMirrorSnapshotXml(const gchar *target,
                               const gchar *overlayPath,
                               GPtrArray *disks)
{
    GString *xml = g_string_new("<domainsnapshot>\n  <disks>\n");
    guint i;

    virCheckpointXmlAppend(xml,
                           "    <disk name='%s' snapshot='external' type='file'>\n"
                           "      <driver type='qcow2'/>\n"
                           "      <source file='%s'/>\n"
                           "    </disk>\n",
                           target, overlayPath);
    for (i = 0; i < disks->len; i++) {
        const gchar *other = g_ptr_array_index(disks, i);

        if (!g_str_equal(other, target))
            virCheckpointXmlAppend(xml, "    <disk name='%s' snapshot='no'/>\n", other);
    }
    g_string_append(xml, "  </disks>\n</domainsnapshot>\n");
    return g_string_free(xml, FALSE);
}

static xmlNode *
virCheckpointMirrorDiskByTarget(xmlNode *domain, const gchar *target)
{
    g_autoptr(GPtrArray) disks = virCheckpointXmlNodes(domain, "./devices/disk");
    guint i;

    for (i = 0; i < disks->len; i++) {
        xmlNode *disk = g_ptr_array_index(disks, i);
        g_autofree gchar *dev = virCheckpointXmlString(disk, "./target/@dev");

        if (g_strcmp0(dev, target) == 0)
            return disk;
    }
    return NULL;
}

gboolean
virCheckpointMirrorXmlReady(const gchar *domainXml,
                            const gchar *target,
                            const gchar *job)
{
    g_autoptr(xmlDoc) doc =
        virCheckpointXmlParse(domainXml, "(domain_definition)", "domain", NULL);
    g_autofree gchar *kind = NULL;
    g_autofree gchar *ready = NULL;
    xmlNode *disk;

    if (!doc)
        return FALSE;
    disk = virCheckpointMirrorDiskByTarget(xmlDocGetRootElement(doc), target);
    if (!disk)
        return FALSE;
    kind = virCheckpointXmlString(disk, "./mirror/@job");
    ready = virCheckpointXmlString(disk, "./mirror/@ready");
    return g_strcmp0(kind, job) == 0 && g_strcmp0(ready, "yes") == 0;
}

virCheckpointDef *
virCheckpointMirrorCheckpointDef(const gchar *name,
                                 const gchar *target,
                                 GPtrArray *disks)
{
    virCheckpointDef *def = virCheckpointDefNew();
    guint i;

    def->name = g_strdup(name);
    if (!def->disks)
        def->disks =
            g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointDiskDefFree);
    for (i = 0; i < disks->len; i++) {
        const gchar *disk = g_ptr_array_index(disks, i);
        gboolean covered = g_str_equal(disk, target);
        virCheckpointDiskDef *entry = virCheckpointDiskDefNew(
            disk, covered ? VIR_CHECKPOINT_DISK_BITMAP : VIR_CHECKPOINT_DISK_NONE);

        if (covered)
            entry->bitmap = g_strdup(name);
        g_ptr_array_add(def->disks, entry);
    }
    return def;
}

void
virCheckpointMirrorProgress(guint64 lastCur,
                            guint64 lastEnd,
                            guint64 *cur,
                            guint64 *end)
{
    gdouble least;

    if (*end == 0)
        *end = 1;
    if (*cur >= *end)
        *cur = *end - 1;
    if (lastEnd == 0)
        return;
    least = (gdouble)lastCur / (gdouble)lastEnd * (gdouble)*end;
    if ((gdouble)*cur >= least)
        return;
    *cur = (guint64)least;
    if ((gdouble)*cur < least)
        (*cur)++;
    if (*cur >= *end)
        *cur = *end - 1;
}
