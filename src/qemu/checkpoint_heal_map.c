/*
 * checkpoint_heal_map.c: where in its files the data of a disk is
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: bytes that go through a server are copied four times, and qemu-img compare
 * copies them once.  So what is in a plain file as it is we read ourselves, where
 * qemu-img map says.  Each image is opened by us once, and qemu-img opens it through
 * our descriptor's name: an image that leaves the chain while we read, and whose name
 * becomes another file's, is still the one that is mapped.
 *
 * The map of a running guest's image is right for every block that the guest does not
 * write (checkpoint_heal.c).
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_heal_map.h"
#include "checkpoint_json.h"
#include "checkpoint_process.h"
#include "checkpoint_storage_argv.h"

struct virCheckpointMap {
    GArray *fds;   /* int, top first */
    gchar *images; /* the chain, for qemu-img */
};

/* A layer and what is below it, as QEMU's options; each file is one of our descriptors.
 */
static virCheckpointJson *
virCheckpointMapOptions(const virCheckpointMap *map, GPtrArray *layers, guint i)
{
    const virCheckpointStorageLayer *layer;
    g_autofree gchar *name = NULL;
    virCheckpointJson *file;
    gboolean raw;

    if (i == layers->len)
        return virCheckpointJsonNewNull();
    layer = g_ptr_array_index(layers, i);
    raw = g_str_equal(layer->format, "raw");
    name = g_strdup_printf("/proc/%d/fd/%d", (int)getpid(),
                           g_array_index(map->fds, int, i));
    file = virCheckpointJsonBuild(
        "s:driver",
        layer->type == VIR_CHECKPOINT_STORAGE_BLOCK ? "host_device" : "file",
        "s:filename", name, NULL);
    return virCheckpointJsonBuild(
        "s:driver", layer->format, "a:file", file, "a:backing",
        raw ? NULL : virCheckpointMapOptions(map, layers, i + 1), NULL);
}

static gboolean
virCheckpointMapIsPlain(const virCheckpointStorageLayer *layer, gboolean last)
{
    if (layer->luks || layer->type == VIR_CHECKPOINT_STORAGE_NBD || !layer->format ||
        !layer->path)
        return FALSE;
    return g_str_equal(layer->format, "qcow2") ||
           (last && g_str_equal(layer->format, "raw"));
}

virCheckpointMap *
virCheckpointMapNew(GPtrArray *layers, GError **error)
{
    g_autoptr(virCheckpointMap) map = g_new0(virCheckpointMap, 1);
    g_autoptr(virCheckpointJson) options = NULL;
    g_autofree gchar *text = NULL;
    guint i;

    map->fds = g_array_new(FALSE, FALSE, sizeof(int));
    for (i = 0; i < layers->len; i++) {
        const virCheckpointStorageLayer *layer = g_ptr_array_index(layers, i);
        int fd;

        if (!virCheckpointMapIsPlain(layer, i + 1 == layers->len))
            return NULL;
        if ((fd = open(layer->path, O_RDONLY | O_CLOEXEC | O_NOCTTY)) < 0) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                        "cannot open '%s': %s", layer->path, g_strerror(errno));
            return NULL;
        }
        g_array_append_val(map->fds, fd);
    }
    options = virCheckpointMapOptions(map, layers, 0);
    text = virCheckpointJsonFormat(options);
    map->images = g_strconcat("json:", text, NULL);
    return g_steal_pointer(&map);
}

void
virCheckpointMapFree(virCheckpointMap *map)
{
    guint i;

    if (!map)
        return;
    for (i = 0; i < map->fds->len; i++)
        close(g_array_index(map->fds, int, i));
    g_array_unref(map->fds);
    g_free(map->images);
    g_free(map);
}

/* One line of qemu-img's; FALSE if it cannot be understood. */
static gboolean
virCheckpointMapParse(const virCheckpointMap *map,
                      const virCheckpointJson *line,
                      virCheckpointExtent *extent)
{
    guint64 depth;

    if (!virCheckpointJsonGetUint64(line, "start", &extent->offset) ||
        !virCheckpointJsonGetUint64(line, "length", &extent->length) ||
        extent->length == 0)
        return FALSE;
    extent->kind = VIR_CHECKPOINT_EXTENT_OTHER;
    extent->fd = -1;
    if (virCheckpointJsonGetBoolean(line, "zero", FALSE)) {
        extent->kind = VIR_CHECKPOINT_EXTENT_ZERO;
    } else if (virCheckpointJsonGetBoolean(line, "data", FALSE) &&
               virCheckpointJsonGetUint64(line, "offset", &extent->at) &&
               virCheckpointJsonGetUint64(line, "depth", &depth) &&
               depth < map->fds->len) {
        extent->kind = VIR_CHECKPOINT_EXTENT_PLAIN;
        extent->fd = g_array_index(map->fds, int, depth);
    }
    return TRUE;
}

GArray *
virCheckpointMapLook(const virCheckpointMap *map,
                     guint64 offset,
                     guint64 length,
                     GError **error)
{
    g_autoptr(GArray) extents = g_array_new(FALSE, FALSE, sizeof(virCheckpointExtent));
    g_autofree gchar *start = g_strdup_printf("%" G_GUINT64_FORMAT, offset);
    g_autofree gchar *count = g_strdup_printf("%" G_GUINT64_FORMAT, length);
    const gchar *const argv[] = {
        "qemu-img", "map",          "-U",  "--output=json", "--start-offset",
        start,      "--max-length", count, map->images,     NULL};
    g_autofree gchar *output = NULL;
    g_autoptr(virCheckpointJson) lines = NULL;
    guint64 at = offset;
    gsize i;

    if (!virCheckpointProcessRun(argv, &output, error) ||
        !(lines = virCheckpointJsonParse(output, -1, error)))
        return NULL;
    for (i = 0; i < virCheckpointJsonLength(lines); i++) {
        virCheckpointExtent extent;

        if (!virCheckpointMapParse(map, virCheckpointJsonIndex(lines, i), &extent) ||
            extent.offset != at)
            break;
        at += extent.length;
        g_array_append_val(extents, extent);
    }
    if (i == virCheckpointJsonLength(lines) && at == offset + length)
        return g_steal_pointer(&extents);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                "qemu-img map is not understood at %" G_GUINT64_FORMAT, at);
    return NULL;
}
