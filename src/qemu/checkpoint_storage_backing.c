/*
 * checkpoint_storage_backing.c: names of images as they stand in headers
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: what a header names as the image below is a path, relative to the image that
 * names it; an address of a network block device; or "json:" and QEMU's options, nested
 * or with dots in the keys.  Whatever else it is (QEMU knows many) is refused with its
 * name: opening another image than the guest does would be worse.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_json.h"
#include "checkpoint_storage_argvpriv.h"

#define NBD_PORT 10809

/* Member @path of nested options, or "@path" as one key with dots. */
static const gchar *
virCheckpointStorageOption(const virCheckpointJson *options, const gchar *path)
{
    const gchar *flat = virCheckpointJsonGetString(options, path);

    return flat ? flat : virCheckpointJsonString(virCheckpointJsonPath(options, path));
}

static virCheckpointStorageLayer *
virCheckpointStorageParseJsonNbd(const virCheckpointJson *options,
                                 const gchar *prefix,
                                 GError **error)
{
    g_autoptr(virCheckpointStorageLayer) layer =
        virCheckpointStorageLayerNew(VIR_CHECKPOINT_STORAGE_NBD);
    static const gchar *const keys[] = {"export", "server.path", "path", "server.host",
                                        "host",   "server.port", "port", "tls-creds"};
    const gchar *found[G_N_ELEMENTS(keys)];
    guint i;

    for (i = 0; i < G_N_ELEMENTS(keys); i++) {
        g_autofree gchar *key = g_strconcat(prefix, keys[i], NULL);

        found[i] = virCheckpointStorageOption(options, key);
    }
    layer->exportName = g_strdup(found[0]);
    layer->path = g_strdup(found[1] ? found[1] : found[2]);
    layer->host = g_strdup(found[3] ? found[3] : found[4]);
    layer->port = g_strdup(found[5] ? found[5] : found[6]);
    if (layer->host && !layer->port)
        layer->port = g_strdup_printf("%d", NBD_PORT);
    if ((!layer->host && !layer->path) || (layer->host && layer->path) || found[7]) {
        virCheckpointStorageUnsupported(error, "an NBD image with these options");
        return NULL;
    }
    return g_steal_pointer(&layer);
}

static virCheckpointStorageLayer *
virCheckpointStorageParseJson(const gchar *text, GError **error)
{
    g_autoptr(virCheckpointJson) options =
        virCheckpointJsonParse(text + strlen("json:"), -1, NULL);
    const gchar *prefix = "file.";
    const gchar *driver = virCheckpointStorageOption(options, "file.driver");
    g_autofree gchar *key = NULL;
    const gchar *path;
    virCheckpointStorageLayer *layer;

    if (!driver) {
        prefix = "";
        driver = virCheckpointJsonGetString(options, "driver");
    }
    if (g_strcmp0(driver, "nbd") == 0)
        return virCheckpointStorageParseJsonNbd(options, prefix, error);
    key = g_strconcat(prefix, "filename", NULL);
    path = virCheckpointStorageOption(options, key);
    if (!path ||
        (g_strcmp0(driver, "file") != 0 && g_strcmp0(driver, "host_device") != 0)) {
        virCheckpointStorageUnsupported(error, "the backing image '%s'", text);
        return NULL;
    }
    layer = virCheckpointStorageLayerNew(g_str_equal(driver, "file")
                                             ? VIR_CHECKPOINT_STORAGE_FILE
                                             : VIR_CHECKPOINT_STORAGE_BLOCK);
    layer->path = g_strdup(path);
    return layer;
}

/* nbd://HOST[:PORT][/EXPORT], nbd+unix:///EXPORT?socket=PATH */
static virCheckpointStorageLayer *
virCheckpointStorageParseUri(const gchar *text, GError **error)
{
    g_autoptr(virCheckpointStorageLayer) layer =
        virCheckpointStorageLayerNew(VIR_CHECKPOINT_STORAGE_NBD);
    g_autoptr(GUri) uri = g_uri_parse(text, G_URI_FLAGS_NONE, NULL);
    g_autoptr(GHashTable) query = NULL;
    const gchar *scheme = uri ? g_uri_get_scheme(uri) : "";
    const gchar *path = uri ? g_uri_get_path(uri) : "";

    if (*path == '/')
        path++;
    layer->exportName = *path ? g_strdup(path) : NULL;
    if (g_str_equal(scheme, "nbd+unix") && g_uri_get_query(uri)) {
        query =
            g_uri_parse_params(g_uri_get_query(uri), -1, "&", G_URI_PARAMS_NONE, NULL);
        if (query)
            layer->path = g_strdup(g_hash_table_lookup(query, "socket"));
    } else if (g_str_equal(scheme, "nbd") || g_str_equal(scheme, "nbd+tcp")) {
        layer->host = g_strdup(g_uri_get_host(uri));
        layer->port = g_strdup_printf(
            "%d", g_uri_get_port(uri) > 0 ? g_uri_get_port(uri) : NBD_PORT);
    }
    if (layer->path || (layer->host && *layer->host))
        return g_steal_pointer(&layer);
    virCheckpointStorageUnsupported(error, "the backing image '%s'", text);
    return NULL;
}

/* "SCHEME:..." with a scheme that QEMU would take for a protocol's name. */
static gboolean
virCheckpointStorageHasProtocol(const gchar *text)
{
    gsize length = strcspn(text, ":/");

    return length > 0 && text[length] == ':';
}

virCheckpointStorageLayer *
virCheckpointStorageParseBacking(const virCheckpointStorageLayer *above,
                                 const gchar *backing,
                                 GError **error)
{
    virCheckpointStorageLayer *layer;

    if (g_str_has_prefix(backing, "json:"))
        return virCheckpointStorageParseJson(backing, error);
    if (g_str_has_prefix(backing, "file:") && !g_str_has_prefix(backing, "file://"))
        backing += strlen("file:");
    else if (virCheckpointStorageHasProtocol(backing))
        return virCheckpointStorageParseUri(backing, error);
    if (!g_path_is_absolute(backing) && above->type == VIR_CHECKPOINT_STORAGE_NBD) {
        virCheckpointStorageUnsupported(
            error, "the backing image '%s' of a remote image", backing);
        return NULL;
    }
    layer = virCheckpointStorageLayerNew(VIR_CHECKPOINT_STORAGE_FILE);
    if (g_path_is_absolute(backing)) {
        layer->path = g_strdup(backing);
    } else {
        g_autofree gchar *folder = g_path_get_dirname(above->path);

        layer->path = g_strdup_printf("%s/%s", folder, backing);
    }
    return layer;
}
