/*
 * checkpoint_storage_volume.c: disks that are volumes of libvirt's storage pools
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: libvirt looks a volume up when it starts the guest, and what it is then is
 * what the guest gets (virDomainDiskTranslateSourcePool of 9.0): a file or a block
 * device, or, of an iSCSI pool in mode "direct", QEMU's own iSCSI driver.  The same is
 * done here, on the document, so that all that follows knows no volumes.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_storage_argvpriv.h"
#include "checkpoint_storage_volume.h"

/* The fourth part of "unit:0:0:LUN". */
static const gchar *
virCheckpointStorageLun(gchar **parts)
{
    return g_strv_length(parts) == 4 && g_str_equal(parts[0], "unit") ? parts[3] : NULL;
}

static void
virCheckpointStorageSet(xmlNode *node, const gchar *name, const gchar *value)
{
    xmlSetProp(node, (const xmlChar *)name, (const xmlChar *)value);
}

/* Mode "direct": the pool's target, host and login become the source's. */
static gboolean
virCheckpointStorageDirect(
    xmlNode *disk, xmlNode *source, const gchar *volume, xmlNode *pool, GError **error)
{
    g_autofree gchar *target = virCheckpointXmlString(pool, "./source/device/@path");
    g_autofree gchar *host = virCheckpointXmlString(pool, "./source/host/@name");
    g_autofree gchar *port = virCheckpointXmlString(pool, "./source/host/@port");
    xmlNode *auth = virCheckpointXmlNode(pool, "./source/auth");
    g_auto(GStrv) parts = g_strsplit(volume, ":", -1);
    const gchar *lun = virCheckpointStorageLun(parts);
    g_autofree gchar *name = NULL;
    xmlNode *node;

    if (!target || !host || !lun)
        return virCheckpointStorageUnsupported(error, "an iSCSI volume '%s'", volume);
    name = g_strdup_printf("%s/%s", target, lun);
    virCheckpointStorageSet(disk, "type", "network");
    virCheckpointStorageSet(source, "protocol", "iscsi");
    virCheckpointStorageSet(source, "name", name);
    node = xmlNewChild(source, NULL, (const xmlChar *)"host", NULL);
    virCheckpointStorageSet(node, "name", host);
    if (port)
        virCheckpointStorageSet(node, "port", port);
    if (auth && !virCheckpointXmlNode(source, "./auth"))
        xmlAddChild(source, xmlDocCopyNode(auth, source->doc, 1));
    return TRUE;
}

static gboolean
virCheckpointStorageReplace(xmlNode *disk,
                            xmlNode *source,
                            const gchar *volume,
                            const gchar *poolXml,
                            const gchar *path,
                            virStorageVolType type,
                            GError **error)
{
    static const gchar *const iscsi[] = {"iscsi", "iscsi-direct", NULL};
    static const gchar *const local[] = {"dir",  "fs",  "netfs",    "logical", "disk",
                                         "scsi", "zfs", "vstorage", "mpath",   NULL};
    g_autofree gchar *mode = virCheckpointXmlString(source, "./@mode");
    g_autoptr(xmlDoc) doc =
        virCheckpointXmlParse(poolXml, "(storage_pool)", "pool", error);
    g_autofree gchar *kind = NULL;
    xmlNode *pool;

    if (!doc)
        return FALSE;
    pool = xmlDocGetRootElement(doc);
    kind = virCheckpointXmlString(pool, "./@type");
    if (kind && g_strv_contains(iscsi, kind)) {
        if (g_strcmp0(mode, "direct") == 0 || g_str_equal(kind, "iscsi-direct"))
            return virCheckpointStorageDirect(disk, source, volume, pool, error);
        type = VIR_STORAGE_VOL_BLOCK;
    } else if (!kind || !g_strv_contains(local, kind)) {
        return virCheckpointStorageUnsupported(error, "a volume of a pool of type '%s'",
                                               kind ? kind : "");
    }
    if (type != VIR_STORAGE_VOL_FILE && type != VIR_STORAGE_VOL_BLOCK)
        return virCheckpointStorageUnsupported(error, "the volume '%s'", volume);
    virCheckpointStorageSet(disk, "type",
                            type == VIR_STORAGE_VOL_FILE ? "file" : "block");
    virCheckpointStorageSet(source, type == VIR_STORAGE_VOL_FILE ? "file" : "dev",
                            path);
    return TRUE;
}

/* @node: a <disk> or <backingStore>, and what is below it. */
static gboolean
virCheckpointStorageTranslateNode(xmlNode *node,
                                  virCheckpointStorageVolumeFunc look,
                                  gpointer data,
                                  GError **error)
{
    static const gchar *const ours[] = {"pool", "volume", "mode"};
    guint i;

    for (; node; node = virCheckpointXmlNode(node, "./backingStore")) {
        xmlNode *source = virCheckpointXmlNode(node, "./source");
        g_autofree gchar *type = virCheckpointXmlString(node, "./@type");
        g_autofree gchar *pool = NULL;
        g_autofree gchar *volume = NULL;
        g_autofree gchar *poolXml = NULL;
        g_autofree gchar *path = NULL;
        virStorageVolType kind = VIR_STORAGE_VOL_FILE;

        if (g_strcmp0(type, "volume") != 0)
            continue;
        pool = virCheckpointXmlString(source, "./@pool");
        volume = virCheckpointXmlString(source, "./@volume");
        if (!pool || !volume)
            return virCheckpointStorageUnsupported(error, "a source without a name");
        if (!look(pool, volume, &poolXml, &path, &kind, data, error) ||
            !virCheckpointStorageReplace(node, source, volume, poolXml, path, kind,
                                         error))
            return FALSE;
        for (i = 0; i < G_N_ELEMENTS(ours); i++)
            xmlUnsetProp(source, (const xmlChar *)ours[i]);
    }
    return TRUE;
}

gchar *
virCheckpointStorageTranslate(const gchar *xml,
                              GPtrArray *targets,
                              virCheckpointStorageVolumeFunc look,
                              gpointer data,
                              GError **error)
{
    g_autoptr(xmlDoc) doc =
        virCheckpointXmlParse(xml, "(domain_definition)", "domain", error);
    g_autoptr(GPtrArray) nodes = NULL;
    guint i;

    if (!doc)
        return NULL;
    nodes = virCheckpointXmlNodes(xmlDocGetRootElement(doc), "./devices/disk");
    for (i = 0; nodes && i < nodes->len; i++) {
        xmlNode *node = g_ptr_array_index(nodes, i);
        g_autofree gchar *target = virCheckpointXmlString(node, "./target/@dev");

        if (!target || (targets && !g_ptr_array_find_with_equal_func(
                                       targets, target, g_str_equal, NULL)))
            continue;
        if (!virCheckpointStorageTranslateNode(node, look, data, error)) {
            g_prefix_error(error, "disk '%s': ", target);
            return NULL;
        }
    }
    return virCheckpointXmlNodeText(xmlDocGetRootElement(doc));
}
