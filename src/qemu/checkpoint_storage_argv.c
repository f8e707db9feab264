/*
 * checkpoint_storage_argv.c: a domain's disks as arguments of qemu-storage-daemon
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: three steps, all pure: the domain XML gives the disks and as much of their
 * chains as libvirt was told; headers (read by the caller) give the rest; the whole
 * becomes arguments.  Every blockdev is JSON with explicit drivers and node names, as
 * libvirt writes them for a guest, so no file name is ever parsed: commas, blanks and
 * "json:" are characters like others.  "backing" is always said, too, so that nothing
 * in a header makes the daemon open a file that is not in the arguments.
 *
 * QEMU's image locking is always on: it is what keeps a guest that was started past us
 * and the daemon from changing one image at a time.  Passphrases are not in arguments:
 * the daemon reads them from a descriptor that it inherits.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_json.h"
#include "checkpoint_storage_argv.h"
#include "checkpoint_storage_argvpriv.h"
#include "checkpoint_xml.h"

/** A longer chain is a loop. */
#define LAYERS_MAX 200

void
virCheckpointStorageLayerFree(virCheckpointStorageLayer *layer)
{
    if (!layer)
        return;
    g_free(layer->path);
    g_free(layer->host);
    g_free(layer->port);
    g_free(layer->exportName);
    g_free(layer->format);
    g_free(layer->secretUuid);
    g_free(layer->secretUsage);
    g_free(layer->tls);
    g_free(layer->tlsHostname);
    g_free(layer->tlsDir);
    g_free(layer->auth.uuid);
    g_free(layer->auth.usage);
    virCheckpointJsonFree(layer->options);
    g_free(layer);
}

void
virCheckpointStorageDiskFree(virCheckpointStorageDisk *disk)
{
    if (!disk)
        return;
    g_free(disk->target);
    g_free(disk->node);
    g_ptr_array_unref(disk->layers);
    g_free(disk);
}

virCheckpointStorageLayer *
virCheckpointStorageLayerNew(virCheckpointStorageType type)
{
    virCheckpointStorageLayer *layer = g_new0(virCheckpointStorageLayer, 1);

    layer->type = type;
    layer->secretFd = -1;
    layer->tlsKeyFd = -1;
    layer->auth.fd = -1;
    return layer;
}

gboolean
virCheckpointStorageUnsupported(GError **error, const gchar *format, ...)
{
    g_autofree gchar *what = NULL;
    va_list ap;

    va_start(ap, format);
    what = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                "%s cannot be opened without its guest", what);
    return FALSE;
}

/* Drivers under the name that both libvirt and QEMU have for them. */
static gboolean
virCheckpointStorageFormatIsKnown(const gchar *format)
{
    static const gchar *const known[] = {
        "raw", "qcow2", "qcow", "qed",   "vmdk",      "vdi", "vhdx",
        "vpc", "bochs", "dmg",  "cloop", "parallels", NULL,
    };

    return g_strv_contains(known, format);
}

/* <encryption> stands in the source, or, as older libvirt wrote it, beside it. */
static gboolean
virCheckpointStorageParseEncryption(virCheckpointStorageLayer *layer,
                                    xmlNode *node,
                                    GError **error)
{
    xmlNode *encryption = virCheckpointXmlNode(node, "./source/encryption");
    g_autofree gchar *format = NULL;
    g_autofree gchar *engine = NULL;

    if (!encryption && !(encryption = virCheckpointXmlNode(node, "./encryption")))
        return TRUE;
    format = virCheckpointXmlString(encryption, "string(./@format)");
    engine = virCheckpointXmlString(encryption, "string(./@engine)");
    if (g_strcmp0(format, "luks") != 0 || (engine && !g_str_equal(engine, "qemu")))
        return virCheckpointStorageUnsupported(error, "encryption of format '%s'",
                                               format ? format : "");
    layer->luks = TRUE;
    layer->secretUuid = virCheckpointXmlString(encryption, "string(./secret/@uuid)");
    layer->secretUsage = virCheckpointXmlString(encryption, "string(./secret/@usage)");
    return layer->secretUuid || layer->secretUsage ||
           virCheckpointStorageUnsupported(error, "encryption without a secret");
}

/* @node: a <disk> or <backingStore>; @top: the guest writes to it. */
static virCheckpointStorageLayer *
virCheckpointStorageParseLayer(xmlNode *node,
                               const gchar *formatPath,
                               gboolean top,
                               GError **error)
{
    g_autoptr(virCheckpointStorageLayer) layer =
        virCheckpointStorageLayerNew(VIR_CHECKPOINT_STORAGE_FILE);

    layer->format = virCheckpointXmlString(node, formatPath);
    if (layer->format && !virCheckpointStorageFormatIsKnown(layer->format)) {
        virCheckpointStorageUnsupported(error, "an image of format '%s'",
                                        layer->format);
        return NULL;
    }
    if (!virCheckpointStorageParseSource(layer, node, top, error) ||
        !virCheckpointStorageParseEncryption(layer, node, error))
        return NULL;
    return g_steal_pointer(&layer);
}

static virCheckpointStorageDisk *
virCheckpointStorageParseDisk(xmlNode *node, guint number, GError **error)
{
    g_autoptr(virCheckpointStorageDisk) disk = g_new0(virCheckpointStorageDisk, 1);
    const gchar *formatPath = "string(./driver/@type)";

    disk->target = virCheckpointXmlString(node, "string(./target/@dev)");
    disk->node = g_strdup_printf("disk%u-0-format", number);
    disk->number = number;
    disk->layers =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointStorageLayerFree);
    for (;;) {
        virCheckpointStorageLayer *layer = virCheckpointStorageParseLayer(
            node, formatPath, disk->layers->len == 0, error);
        xmlNode *below;

        if (!layer)
            return NULL;
        g_ptr_array_add(disk->layers, layer);
        if (!(below = virCheckpointXmlNode(node, "./backingStore")))
            return g_steal_pointer(&disk);
        if (!virCheckpointXmlNode(below, "./source")) {
            disk->complete = TRUE;
            return g_steal_pointer(&disk);
        }
        node = below;
        formatPath = "string(./format/@type)";
    }
}

/* What a guest could not write to takes no checkpoint. */
static gboolean
virCheckpointStorageIsWritable(xmlNode *node)
{
    g_autofree gchar *device = virCheckpointXmlString(node, "string(./@device)");

    return g_strcmp0(device, "cdrom") != 0 && g_strcmp0(device, "floppy") != 0 &&
           !virCheckpointXmlNode(node, "./readonly") &&
           virCheckpointXmlNode(node, "./source");
}

GPtrArray *
virCheckpointStorageDisks(const gchar *xml, GPtrArray *targets, GError **error)
{
    g_autoptr(GPtrArray) disks =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointStorageDiskFree);
    g_autoptr(xmlDoc) doc = NULL;
    g_autoptr(GPtrArray) nodes = NULL;
    guint i;

    if (!(doc = virCheckpointXmlParse(xml, "(domain_definition)", "domain", error)))
        return NULL;
    nodes = virCheckpointXmlNodes(xmlDocGetRootElement(doc), "./devices/disk");
    for (i = 0; nodes && i < nodes->len; i++) {
        xmlNode *node = g_ptr_array_index(nodes, i);
        g_autofree gchar *target =
            virCheckpointXmlString(node, "string(./target/@dev)");
        virCheckpointStorageDisk *disk;

        if (!target || !virCheckpointStorageIsWritable(node) ||
            (targets &&
             !g_ptr_array_find_with_equal_func(targets, target, g_str_equal, NULL)))
            continue;
        if (!(disk = virCheckpointStorageParseDisk(node, i, error))) {
            g_prefix_error(error, "disk '%s': ", target);
            return NULL;
        }
        g_ptr_array_add(disks, disk);
    }
    return g_steal_pointer(&disks);
}

virCheckpointStorageDisk *
virCheckpointStorageTarget(const gchar *xml,
                           const gchar *format,
                           guint number,
                           GError **error)
{
    g_autoptr(xmlDoc) doc =
        virCheckpointXmlParse(xml, "(disk_definition)", "disk", error);
    g_autoptr(virCheckpointStorageDisk) disk = NULL;
    virCheckpointStorageLayer *top;

    if (!doc || !(disk = virCheckpointStorageParseDisk(xmlDocGetRootElement(doc),
                                                       number, error)))
        return NULL;
    g_ptr_array_set_size(disk->layers, 1);
    top = g_ptr_array_index(disk->layers, 0);
    g_free(top->format);
    top->format = g_strdup(format);
    disk->complete = TRUE;
    disk->writable = TRUE;
    return g_steal_pointer(&disk);
}

gboolean
virCheckpointStorageCutAbove(virCheckpointStorageDisk *disk, const gchar *path)
{
    guint i;

    for (i = 0; i < disk->layers->len; i++) {
        const virCheckpointStorageLayer *layer = g_ptr_array_index(disk->layers, i);

        if (g_strcmp0(layer->path, path) != 0)
            continue;
        if (i > 0)
            g_ptr_array_remove_range(disk->layers, 0, i);
        return TRUE;
    }
    return FALSE;
}

/* Only these name an image below them in their headers. */
static gboolean
virCheckpointStorageMayHaveBacking(const virCheckpointStorageLayer *layer)
{
    static const gchar *const may[] = {"qcow2", "qcow", "qed", "vmdk", NULL};

    return !layer->format || g_strv_contains(may, layer->format);
}

static gboolean
virCheckpointStorageCompleteDisk(virCheckpointStorageDisk *disk,
                                 virCheckpointStorageProbeFunc probe,
                                 gpointer data,
                                 GError **error)
{
    while (!disk->complete) {
        virCheckpointStorageLayer *last =
            g_ptr_array_index(disk->layers, disk->layers->len - 1);
        virCheckpointStorageLayer *below;
        g_autofree gchar *backing = NULL;
        g_autofree gchar *format = NULL;

        if (virCheckpointStorageMayHaveBacking(last) &&
            !probe(last, &backing, &format, data, error))
            return FALSE;
        if (!backing) {
            disk->complete = TRUE;
            break;
        }
        if (disk->layers->len >= LAYERS_MAX)
            return virCheckpointStorageUnsupported(error, "a chain of images that "
                                                          "refers to itself");
        if (format && !virCheckpointStorageFormatIsKnown(format))
            return virCheckpointStorageUnsupported(error, "an image of format '%s'",
                                                   format);
        if (!(below = virCheckpointStorageParseBacking(last, backing, error)))
            return FALSE;
        below->format = g_steal_pointer(&format);
        g_ptr_array_add(disk->layers, below);
    }
    return TRUE;
}

gboolean
virCheckpointStorageComplete(GPtrArray *disks,
                             virCheckpointStorageProbeFunc probe,
                             gpointer data,
                             GError **error)
{
    guint i;

    for (i = 0; i < disks->len; i++) {
        virCheckpointStorageDisk *disk = g_ptr_array_index(disks, i);

        if (!virCheckpointStorageCompleteDisk(disk, probe, data, error)) {
            g_prefix_error(error, "disk '%s': ", disk->target);
            return FALSE;
        }
    }
    return TRUE;
}

static gchar *
virCheckpointStorageName(const virCheckpointStorageDisk *disk,
                         guint layer,
                         const gchar *part)
{
    return g_strdup_printf("disk%u-%u-%s", disk->number, layer, part);
}

static void
virCheckpointStorageAddBlockdev(GPtrArray *argv, virCheckpointJson *blockdev)
{
    g_ptr_array_add(argv, g_strdup("--blockdev"));
    g_ptr_array_add(argv, virCheckpointJsonFormat(blockdev));
    virCheckpointJsonFree(blockdev);
}

/* The node that has the bytes. */
static virCheckpointJson *
virCheckpointStorageProtocol(const virCheckpointStorageLayer *layer,
                             const gchar *name,
                             const gchar *creds,
                             const gchar *auth,
                             gboolean readOnly)
{
    virCheckpointJson *server;
    virCheckpointJson *options;

    switch (layer->type) {
    case VIR_CHECKPOINT_STORAGE_OPTIONS:
        options = virCheckpointJsonCopy(layer->options);
        virCheckpointJsonAddString(options, "node-name", name);
        virCheckpointJsonAddBoolean(options, "read-only", readOnly);
        if (layer->authOption)
            virCheckpointJsonAddString(options, layer->authOption, auth);
        return options;
    case VIR_CHECKPOINT_STORAGE_NBD:
        break;
    default:
        return virCheckpointJsonBuild(
            "s:driver",
            layer->type == VIR_CHECKPOINT_STORAGE_BLOCK ? "host_device" : "file",
            "s:node-name", name, "b:read-only", readOnly, "s:filename", layer->path,
            "s:locking", "on", NULL);
    }
    if (layer->host)
        server = virCheckpointJsonBuild("s:type", "inet", "s:host", layer->host,
                                        "s:port", layer->port, NULL);
    else
        server = virCheckpointJsonBuild("s:type", "unix", "s:path", layer->path, NULL);
    return virCheckpointJsonBuild("s:driver", "nbd", "s:node-name", name, "b:read-only",
                                  readOnly, "a:server", server, "s:export",
                                  layer->exportName, "s:tls-creds",
                                  layer->tlsDir ? creds : NULL, "s:tls-hostname",
                                  layer->tlsDir ? layer->tlsHostname : NULL, NULL);
}

/* A part of what node @below has. */
static virCheckpointJson *
virCheckpointStorageSlice(const virCheckpointStorageLayer *layer,
                          const gchar *name,
                          const gchar *below,
                          gboolean readOnly)
{
    return virCheckpointJsonBuild("s:driver", "raw", "s:node-name", name, "b:read-only",
                                  readOnly, "u:offset", layer->sliceOffset, "u:size",
                                  layer->sliceSize, "s:file", below, NULL);
}

static virCheckpointJson *
virCheckpointStorageFormat(const virCheckpointStorageDisk *disk,
                           guint number,
                           const gchar *file,
                           gboolean readOnly)
{
    const virCheckpointStorageLayer *layer = g_ptr_array_index(disk->layers, number);
    g_autofree gchar *name = virCheckpointStorageName(disk, number, "format");
    g_autofree gchar *secret = virCheckpointStorageName(disk, number, "luks");
    const gchar *format = layer->format ? layer->format : "raw";
    gboolean bare = layer->luks && g_str_equal(format, "raw");
    virCheckpointJson *json = virCheckpointJsonBuild(
        "s:driver", bare ? "luks" : format, "s:node-name", name, "b:read-only",
        readOnly, "s:file", file, "s:key-secret", bare ? secret : NULL, NULL);

    if (layer->luks && !bare)
        virCheckpointJsonAdd(
            json, "encrypt",
            virCheckpointJsonBuild("s:format", "luks", "s:key-secret", secret, NULL));
    if (number + 1 < disk->layers->len) {
        g_autofree gchar *below = virCheckpointStorageName(disk, number + 1, "format");

        virCheckpointJsonAddString(json, "backing", below);
    } else if (virCheckpointStorageMayHaveBacking(layer) && layer->format) {
        virCheckpointJsonAdd(json, "backing", virCheckpointJsonParse("null", -1, NULL));
    }
    return json;
}

static void
virCheckpointStorageAddObject(GPtrArray *argv, virCheckpointJson *object)
{
    g_ptr_array_add(argv, g_strdup("--object"));
    g_ptr_array_add(argv, virCheckpointJsonFormat(object));
    virCheckpointJsonFree(object);
}

static void
virCheckpointStorageAddSecret(GPtrArray *argv, const gchar *id, gint fd)
{
    g_autofree gchar *path = g_strdup_printf("/dev/fd/%d", fd);

    virCheckpointStorageAddObject(
        argv, virCheckpointJsonBuild("s:qom-type", "secret", "s:id", id, "s:format",
                                     "base64", "s:file", path, NULL));
}

/* As libvirt makes it for a guest. */
static void
virCheckpointStorageAddTls(GPtrArray *argv,
                           const virCheckpointStorageLayer *layer,
                           const gchar *creds)
{
    g_autofree gchar *key = g_strconcat(creds, "-key", NULL);

    if (layer->tlsKeyFd >= 0)
        virCheckpointStorageAddSecret(argv, key, layer->tlsKeyFd);
    virCheckpointStorageAddObject(
        argv, virCheckpointJsonBuild("s:qom-type", "tls-creds-x509", "s:id", creds,
                                     "s:dir", layer->tlsDir, "s:endpoint", "client",
                                     "b:verify-peer", TRUE, "s:passwordid",
                                     layer->tlsKeyFd >= 0 ? key : NULL, NULL));
}

static void
virCheckpointStorageAddLayer(GPtrArray *argv,
                             const virCheckpointStorageDisk *disk,
                             guint number,
                             gboolean readOnly)
{
    const virCheckpointStorageLayer *layer = g_ptr_array_index(disk->layers, number);
    g_autofree gchar *storage = virCheckpointStorageName(disk, number, "storage");
    g_autofree gchar *slice = virCheckpointStorageName(disk, number, "slice");
    g_autofree gchar *creds = virCheckpointStorageName(disk, number, "tls");
    g_autofree gchar *auth = virCheckpointStorageName(disk, number, "auth");

    if (layer->luks) {
        g_autofree gchar *secret = virCheckpointStorageName(disk, number, "luks");

        virCheckpointStorageAddSecret(argv, secret, layer->secretFd);
    }
    if (layer->tlsDir)
        virCheckpointStorageAddTls(argv, layer, creds);
    if (layer->authOption)
        virCheckpointStorageAddSecret(argv, auth, layer->auth.fd);
    virCheckpointStorageAddBlockdev(
        argv, virCheckpointStorageProtocol(layer, storage, creds, auth, readOnly));
    if (layer->slice)
        virCheckpointStorageAddBlockdev(
            argv, virCheckpointStorageSlice(layer, slice, storage, readOnly));
    virCheckpointStorageAddBlockdev(
        argv, virCheckpointStorageFormat(disk, number, layer->slice ? slice : storage,
                                         readOnly));
}

gchar **
virCheckpointStorageArgv(GPtrArray *disks, gboolean writable)
{
    GPtrArray *argv = g_ptr_array_new();
    guint i;
    guint j;

    for (i = 0; i < disks->len; i++) {
        const virCheckpointStorageDisk *disk = g_ptr_array_index(disks, i);

        /* A node is there before the one above it names it. */
        for (j = disk->layers->len; j-- > 0;)
            virCheckpointStorageAddLayer(argv, disk, j,
                                         !(writable || disk->writable) || j > 0);
    }
    g_ptr_array_add(argv, NULL);
    return (gchar **)g_ptr_array_free(argv, FALSE);
}

gboolean
virCheckpointStorageNeedsNetwork(GPtrArray *disks)
{
    guint i;
    guint j;

    for (i = 0; i < disks->len; i++) {
        const virCheckpointStorageDisk *disk = g_ptr_array_index(disks, i);

        for (j = 0; j < disk->layers->len; j++) {
            const virCheckpointStorageLayer *layer = g_ptr_array_index(disk->layers, j);

            if (layer->host || layer->network)
                return TRUE;
        }
    }
    return FALSE;
}
