/*
 * checkpoint_mirror_dest.c: the <disk> that a mirror copies to
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The destination is kept as the caller wrote it (cache mode, discard, secrets and so
 * on are for libvirt's own copy and for the domain after a pivot); we add only what the
 * relay needs to be said: the format and the end of the backing chain.
 *
 * Every source has a name, by which the rest of the mirror knows it: the path of a file
 * or block device, or an address as QEMU shows it for its node, so that the two can be
 * compared.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_mirror_dest.h"
#include "checkpoint_xml.h"

/** NBD's port by IANA. */
#define NBD_PORT "10809"

void
virCheckpointMirrorDestFree(virCheckpointMirrorDest *dest)
{
    if (!dest)
        return;
    g_free(dest->path);
    g_free(dest->format);
    g_free(dest);
}

/* The root element as libvirt 9 judges it: its sentence, not the parser's. */
static xmlDoc *
virCheckpointMirrorParseDisk(const gchar *xml, GError **error)
{
    g_autoptr(xmlDoc) doc =
        virCheckpointXmlParse(xml, "(disk_definition)", NULL, error);
    xmlNode *root;

    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    if (!g_str_equal((const gchar *)root->name, "disk")) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR,
                    "expecting root element of 'disk', not '%s'", root->name);
        return NULL;
    }
    return g_steal_pointer(&doc);
}

/* Source: QEMU's nbd_refresh_filename() (block/nbd.c). */
static gchar *
virCheckpointMirrorNbdName(xmlNode *source)
{
    g_autofree gchar *name = virCheckpointXmlString(source, "./@name");
    g_autofree gchar *path = virCheckpointXmlString(source, "./host/@socket");
    g_autofree gchar *host = virCheckpointXmlString(source, "./host/@name");
    g_autofree gchar *port = virCheckpointXmlString(source, "./host/@port");
    gboolean named = name && *name;

    if (path)
        return named ? g_strdup_printf("nbd+unix:///%s?socket=%s", name, path)
                     : g_strdup_printf("nbd+unix://?socket=%s", path);
    if (!host)
        return NULL;
    return g_strconcat("nbd://", host, ":", port ? port : NBD_PORT, named ? "/" : NULL,
                       name, NULL);
}

/* @node: a <disk> or <backingStore>; NULL: no source that has a name. */
static gchar *
virCheckpointMirrorSourceName(xmlNode *node)
{
    xmlNode *source = virCheckpointXmlNode(node, "./source");
    g_autofree gchar *protocol = NULL;
    g_autofree gchar *name = NULL;
    gchar *path;

    if (!source)
        return NULL;
    if ((path = virCheckpointXmlString(source, "./@file")) ||
        (path = virCheckpointXmlString(source, "./@dev")))
        return path;
    protocol = virCheckpointXmlString(source, "./@protocol");
    if (g_strcmp0(protocol, "nbd") == 0)
        return virCheckpointMirrorNbdName(source);
    name = virCheckpointXmlString(source, "./@name");
    return protocol && name ? g_strconcat(protocol, ":", name, NULL) : NULL;
}

static gboolean
virCheckpointMirrorDestCheck(xmlNode *root,
                             const virCheckpointMirrorDest *dest,
                             GError **error)
{
    g_autofree gchar *type = virCheckpointXmlString(root, "./@type");
    static const gchar *const types[] = {"", "file", "block", "network", NULL};

    if (type && !g_strv_contains(types, type)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "destination of type '%s': an incremental copy needs a file, a "
                    "block device or a network disk",
                    type);
        return FALSE;
    }
    if (!dest->path || !*dest->path) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_NO_SOURCE,
                            "destination names no file");
        return FALSE;
    }
    if (dest->local && !g_path_is_absolute(dest->path)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "destination '%s' must be an absolute path", dest->path);
        return FALSE;
    }
    if (dest->format && !g_str_equal(dest->format, "qcow2") &&
        !g_str_equal(dest->format, "raw")) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "destination format '%s': an incremental copy needs qcow2 or raw",
                    dest->format);
        return FALSE;
    }
    if (virCheckpointXmlNode(root, "./source/slices | ./encryption")) {
        g_set_error_literal(
            error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
            "an incremental copy cannot slice its destination, and wants"
            " encryption to be said inside its <source>");
        return FALSE;
    }
    return TRUE;
}

virCheckpointMirrorDest *
virCheckpointMirrorDestParse(const gchar *xml, GError **error)
{
    g_autoptr(xmlDoc) doc = virCheckpointMirrorParseDisk(xml, error);
    g_autoptr(virCheckpointMirrorDest) dest = NULL;
    g_autofree gchar *type = NULL;
    xmlNode *root;

    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    type = virCheckpointXmlString(root, "./@type");
    dest = g_new0(virCheckpointMirrorDest, 1);
    dest->path = virCheckpointMirrorSourceName(root);
    dest->format = virCheckpointXmlString(root, "./driver/@type");
    dest->local = g_strcmp0(type, "network") != 0;
    dest->aside = !dest->local || virCheckpointXmlNode(root, "./source/encryption");
    if (dest->format && !*dest->format)
        g_clear_pointer(&dest->format, g_free);
    if (!virCheckpointMirrorDestCheck(root, dest, error))
        return NULL;
    return g_steal_pointer(&dest);
}

static void
virCheckpointMirrorRemoveNode(xmlNode *node)
{
    if (!node)
        return;
    xmlUnlinkNode(node);
    xmlFreeNode(node);
}

static xmlNode *
virCheckpointMirrorEnsureDriver(xmlNode *disk)
{
    xmlNode *driver = virCheckpointXmlNode(disk, "./driver");

    if (driver)
        return driver;
    driver = xmlNewChild(disk, NULL, BAD_CAST "driver", NULL);
    xmlSetProp(driver, BAD_CAST "name", BAD_CAST "qemu");
    return driver;
}

gchar *
virCheckpointMirrorDestAsBlock(const gchar *destXml, GError **error)
{
    g_autoptr(xmlDoc) doc = virCheckpointMirrorParseDisk(destXml, error);
    g_autofree gchar *path = NULL;
    xmlNode *source;
    xmlNode *disk;

    if (!doc)
        return NULL;
    disk = xmlDocGetRootElement(doc);
    source = virCheckpointXmlNode(disk, "./source");
    path = virCheckpointMirrorSourceName(disk);
    xmlSetProp(disk, BAD_CAST "type", BAD_CAST "block");
    xmlUnsetProp(source, BAD_CAST "file");
    xmlSetProp(source, BAD_CAST "dev", BAD_CAST path);
    return virCheckpointXmlNodeText(disk);
}

gchar *
virCheckpointMirrorDestXml(const gchar *path, const gchar *format, gboolean block)
{
    GString *xml = g_string_new(NULL);

    virCheckpointXmlAppend(xml, "<disk type='%s'><driver name='qemu' type='%s'/>",
                           block ? "block" : "file", format);
    virCheckpointXmlAppend(xml, "<source %s='%s'/></disk>", block ? "dev" : "file",
                           path);
    return g_string_free(xml, FALSE);
}

gchar *
virCheckpointMirrorCopyXml(const gchar *destXml, const gchar *format, GError **error)
{
    g_autoptr(xmlDoc) doc = virCheckpointMirrorParseDisk(destXml, error);
    g_autofree gchar *type = NULL;
    xmlNode *disk;

    if (!doc)
        return NULL;
    disk = xmlDocGetRootElement(doc);
    type = virCheckpointXmlString(disk, "./@type");
    if (!type || !*type)
        xmlSetProp(disk, BAD_CAST "type", BAD_CAST "file");
    xmlSetProp(virCheckpointMirrorEnsureDriver(disk), BAD_CAST "type", BAD_CAST format);
    virCheckpointMirrorRemoveNode(virCheckpointXmlNode(disk, "./backingStore"));
    xmlNewChild(disk, NULL, BAD_CAST "backingStore", NULL);
    return virCheckpointXmlNodeText(disk);
}

/* Gives @disk the source of @from, a <disk> or <backingStore>, with all that it says of
 * labels, secrets and hosts. */
static void
virCheckpointMirrorTakeSource(xmlNode *disk, xmlNode *from)
{
    g_autofree gchar *type = virCheckpointXmlString(from, "./@type");
    xmlNode *old = virCheckpointXmlNode(disk, "./source");
    xmlNode *source =
        xmlDocCopyNode(virCheckpointXmlNode(from, "./source"), disk->doc, 1);

    xmlUnsetProp(source, BAD_CAST "index");
    xmlSetProp(disk, BAD_CAST "type", BAD_CAST(type && *type ? type : "file"));
    xmlReplaceNode(old, source);
    xmlFreeNode(old);
}

/* Between two plain files only the path differs: what else the source says stays. */
static gboolean
virCheckpointMirrorIsPlain(xmlNode *disk)
{
    xmlNode *source = virCheckpointXmlNode(disk, "./source");
    g_autofree gchar *file = virCheckpointXmlString(source, "./@file");

    return file && !virCheckpointXmlNode(source, "./*[not(self::seclabel)]");
}

static void
virCheckpointMirrorChangeSource(xmlNode *disk, xmlNode *store, xmlNode *to)
{
    g_autofree gchar *name = virCheckpointMirrorSourceName(to);
    g_autofree gchar *below = store ? virCheckpointMirrorSourceName(store) : NULL;

    if (virCheckpointMirrorIsPlain(disk) && virCheckpointMirrorIsPlain(to))
        xmlSetProp(virCheckpointXmlNode(disk, "./source"), BAD_CAST "file",
                   BAD_CAST name);
    else
        virCheckpointMirrorTakeSource(disk, g_strcmp0(below, name) == 0 ? store : to);
}

/* Writes the chain below @store (an element that describes the new source) one level
 * higher: its own <backingStore> becomes the disk's. */
static void
virCheckpointMirrorPullUp(xmlNode *store, const gchar *to)
{
    g_autofree gchar *name = virCheckpointMirrorSourceName(store);
    xmlNode *inner = virCheckpointXmlNode(store, "./backingStore");

    if (inner && g_strcmp0(name, to) == 0) {
        xmlUnlinkNode(inner);
        xmlAddNextSibling(store, inner);
    }
    virCheckpointMirrorRemoveNode(store);
}

static xmlNode *
virCheckpointMirrorDiskBySource(xmlNode *domain, const gchar *name)
{
    g_autoptr(GPtrArray) disks = virCheckpointXmlNodes(domain, "./devices/disk");
    guint i;

    for (i = 0; i < disks->len; i++) {
        xmlNode *disk = g_ptr_array_index(disks, i);
        g_autofree gchar *found = virCheckpointMirrorSourceName(disk);

        if (g_strcmp0(found, name) == 0)
            return disk;
    }
    return NULL;
}

gchar *
virCheckpointMirrorReplaceSource(const gchar *domainXml,
                                 const gchar *from,
                                 const gchar *toXml,
                                 GError **error)
{
    g_autoptr(xmlDoc) doc =
        virCheckpointXmlParse(domainXml, "(domain_definition)", "domain", error);
    g_autoptr(xmlDoc) toDoc = doc ? virCheckpointMirrorParseDisk(toXml, error) : NULL;
    g_autofree gchar *format = NULL;
    g_autofree gchar *name = NULL;
    xmlNode *disk;
    xmlNode *store;
    xmlNode *to;

    if (!toDoc)
        return NULL;
    disk = virCheckpointMirrorDiskBySource(xmlDocGetRootElement(doc), from);
    if (!disk)
        return NULL;
    to = xmlDocGetRootElement(toDoc);
    name = virCheckpointMirrorSourceName(to);
    format = virCheckpointXmlString(to, "./driver/@type");
    store = virCheckpointXmlNode(disk, "./backingStore");
    virCheckpointMirrorChangeSource(disk, store, to);
    if (format)
        xmlSetProp(virCheckpointMirrorEnsureDriver(disk), BAD_CAST "type",
                   BAD_CAST format);
    if (store)
        virCheckpointMirrorPullUp(store, name);
    return virCheckpointXmlNodeText(xmlDocGetRootElement(doc));
}

gchar *
virCheckpointMirrorXmlSource(const gchar *domainXml, const gchar *target)
{
    g_autoptr(xmlDoc) doc =
        virCheckpointXmlParse(domainXml, "(domain_definition)", "domain", NULL);
    g_autoptr(GPtrArray) disks = NULL;
    guint i;

    if (!doc)
        return NULL;
    disks = virCheckpointXmlNodes(xmlDocGetRootElement(doc), "./devices/disk");
    for (i = 0; i < disks->len; i++) {
        xmlNode *disk = g_ptr_array_index(disks, i);
        g_autofree gchar *dev = virCheckpointXmlString(disk, "./target/@dev");

        if (g_strcmp0(dev, target) == 0)
            return virCheckpointMirrorSourceName(disk);
    }
    return NULL;
}
