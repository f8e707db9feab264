/*
 * checkpoint_backup_request.c: what a <domainbackup> asks for
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: libvirt runs the backup, so its XML is libvirt's to judge.  We need to know
 * which disk is backed up since which checkpoint, and to put another name in its place.
 * The rules are libvirt's: a list of disks leaves the others out; without a list all
 * writable disks take part; a disk's own incremental goes before that of the domain;
 * backupmode='full' needs none.  Nothing else in the document is touched.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_backup_request.h"
#include "checkpoint_domain.h"
#include "checkpoint_xml.h"

struct virCheckpointBackupRequest {
    xmlDoc *doc;
    gboolean push;
    GPtrArray *uses; /* virCheckpointBackupUse* */
};

static void
virCheckpointBackupUseFree(gpointer opaque)
{
    virCheckpointBackupUse *use = opaque;

    g_free(use->name);
    g_ptr_array_unref(use->targets);
    g_free(use);
}

void
virCheckpointBackupRequestFree(virCheckpointBackupRequest *request)
{
    if (!request)
        return;
    if (request->doc)
        xmlFreeDoc(request->doc);
    g_ptr_array_unref(request->uses);
    g_free(request);
}

static void
virCheckpointBackupRequestAdd(virCheckpointBackupRequest *request,
                              const gchar *name,
                              const gchar *target)
{
    virCheckpointBackupUse *use;
    guint i;

    for (i = 0; i < request->uses->len; i++) {
        use = g_ptr_array_index(request->uses, i);
        if (g_str_equal(use->name, name)) {
            g_ptr_array_add(use->targets, g_strdup(target));
            return;
        }
    }
    use = g_new0(virCheckpointBackupUse, 1);
    use->name = g_strdup(name);
    use->targets = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(use->targets, g_strdup(target));
    g_ptr_array_add(request->uses, use);
}

/* The <disk> that names @disk, or NULL. */
static xmlNode *
virCheckpointBackupRequestListed(GPtrArray *nodes, const virCheckpointDisk *disk)
{
    guint i;

    for (i = 0; i < nodes->len; i++) {
        g_autofree gchar *name =
            virCheckpointXmlString(g_ptr_array_index(nodes, i), "string(./@name)");

        if (g_strcmp0(name, disk->target) == 0 ||
            (disk->source && g_strcmp0(name, disk->source) == 0))
            return g_ptr_array_index(nodes, i);
    }
    return NULL;
}

/* Since which checkpoint @disk is backed up, or NULL. */
static gchar *
virCheckpointBackupRequestSince(xmlNode *root,
                                GPtrArray *nodes,
                                const virCheckpointDisk *disk)
{
    xmlNode *node = virCheckpointBackupRequestListed(nodes, disk);
    g_autofree gchar *backup = NULL;
    g_autofree gchar *mode = NULL;
    g_autofree gchar *since = NULL;

    if (!node) {
        if (nodes->len > 0 || disk->readOnly || disk->empty || disk->cdromOrFloppy)
            return NULL;
        return virCheckpointXmlString(root, "./incremental");
    }
    backup = virCheckpointXmlString(node, "./@backup");
    mode = virCheckpointXmlString(node, "./@backupmode");
    if (g_strcmp0(backup, "no") == 0 || g_strcmp0(mode, "full") == 0)
        return NULL;
    since = virCheckpointXmlString(node, "./@incremental");
    return since ? g_steal_pointer(&since)
                 : virCheckpointXmlString(root, "./incremental");
}

virCheckpointBackupRequest *
virCheckpointBackupRequestParse(const gchar *xml, GPtrArray *disks, GError **error)
{
    g_autoptr(virCheckpointBackupRequest) request =
        g_new0(virCheckpointBackupRequest, 1);
    g_autoptr(GPtrArray) nodes = NULL;
    g_autofree gchar *mode = NULL;
    xmlNode *root;
    guint i;

    request->uses = g_ptr_array_new_with_free_func(virCheckpointBackupUseFree);
    request->doc = virCheckpointXmlParse(xml, "(domain_backup)", "domainbackup", error);
    if (!request->doc)
        return NULL;
    root = xmlDocGetRootElement(request->doc);
    mode = virCheckpointXmlString(root, "./@mode");
    request->push = !mode || g_str_equal(mode, "push");
    nodes = virCheckpointXmlNodes(root, "./disks/disk");
    for (i = 0; i < disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(disks, i);
        g_autofree gchar *since = virCheckpointBackupRequestSince(root, nodes, disk);

        if (since && *since)
            virCheckpointBackupRequestAdd(request, since, disk->target);
    }
    return g_steal_pointer(&request);
}

gboolean
virCheckpointBackupRequestIsPush(const virCheckpointBackupRequest *request)
{
    return request->push;
}

const GPtrArray *
virCheckpointBackupRequestUses(const virCheckpointBackupRequest *request)
{
    return request->uses;
}

void
virCheckpointBackupRequestRename(virCheckpointBackupRequest *request,
                                 const gchar *from,
                                 const gchar *to)
{
    xmlNode *root = xmlDocGetRootElement(request->doc);
    g_autoptr(GPtrArray) nodes = virCheckpointXmlNodes(root, "./disks/disk");
    xmlNode *whole = virCheckpointXmlNode(root, "./incremental");
    g_autofree gchar *text = virCheckpointXmlString(root, "./incremental");
    guint i;

    /* Names have no letter that would need escaping. */
    if (whole && g_strcmp0(text, from) == 0)
        xmlNodeSetContent(whole, (const xmlChar *)to);
    for (i = 0; i < nodes->len; i++) {
        xmlNode *node = g_ptr_array_index(nodes, i);
        g_autofree gchar *since = virCheckpointXmlString(node, "./@incremental");

        if (g_strcmp0(since, from) == 0)
            xmlSetProp(node, (const xmlChar *)"incremental", (const xmlChar *)to);
    }
}

gchar *
virCheckpointBackupRequestFormat(const virCheckpointBackupRequest *request)
{
    return virCheckpointXmlNodeText(xmlDocGetRootElement(request->doc));
}
