/*
 * checkpoint_nodes.c: what QEMU's block graph and bitmaps look like now
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: three replies make one picture.  query-named-block-nodes (flat) has the nodes
 * with their sizes and bitmaps, x-debug-query-block-graph the edges between them
 * (stable since QEMU 4.0 and the only reply that has them), query-block the node that
 * each device looks at.  That node can be a filter (copy-on-read; mirror and commit
 * jobs insert theirs), which takes no persistent bitmap: look-ups walk down to the
 * format node.
 *
 * A disk without layers below it is the common case, and then query-block says all that
 * matters in one reply: each device's node with its size and bitmaps.  Creating and
 * deleting look that way (virCheckpointGraphQueryDisks()): each question costs as much
 * as a step of theirs.
 *
 * A graph is a snapshot: it is true only while the domain's slot is held, and foreign
 * jobs may change it even then.  So what it shows is used to build a command, and
 * QEMU's answer to the command decides.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_nodes.h"

/** Pivots do not come in rows. */
#define QUERY_TRIES 10

struct virCheckpointGraph {
    GPtrArray *nodes;   /* virCheckpointNode*, owned */
    GHashTable *byName; /* borrowed key -> virCheckpointNode*, borrowed */
    GPtrArray *qdevs;   /* gchar*: parallel to tops */
    GPtrArray *tops;    /* gchar*: node-name */
};

static void
virCheckpointBitmapInfoFree(virCheckpointBitmapInfo *info)
{
    g_free(info->name);
    g_free(info);
}

static void
virCheckpointNodeFree(virCheckpointNode *node)
{
    g_free(node->name);
    g_free(node->driver);
    g_free(node->file);
    g_free(node->backing);
    g_free(node->child);
    g_ptr_array_unref(node->bitmaps);
    g_free(node);
}

void
virCheckpointGraphFree(virCheckpointGraph *graph)
{
    if (!graph)
        return;
    g_hash_table_unref(graph->byName);
    g_ptr_array_unref(graph->nodes);
    g_ptr_array_unref(graph->qdevs);
    g_ptr_array_unref(graph->tops);
    g_free(graph);
}

static void
virCheckpointNodeReadBitmaps(virCheckpointNode *node, const virCheckpointJson *list)
{
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(list); i++) {
        const virCheckpointJson *entry = virCheckpointJsonIndex(list, i);
        const gchar *name = virCheckpointJsonGetString(entry, "name");
        virCheckpointBitmapInfo *info;

        if (!name)
            continue;
        info = g_new0(virCheckpointBitmapInfo, 1);
        info->name = g_strdup(name);
        virCheckpointJsonGetUint64(entry, "count", &info->countBytes);
        virCheckpointJsonGetUint64(entry, "granularity", &info->granularity);
        info->recording = virCheckpointJsonGetBoolean(entry, "recording", FALSE);
        info->busy = virCheckpointJsonGetBoolean(entry, "busy", FALSE);
        info->persistent = virCheckpointJsonGetBoolean(entry, "persistent", FALSE);
        info->inconsistent = virCheckpointJsonGetBoolean(entry, "inconsistent", FALSE);
        g_ptr_array_add(node->bitmaps, info);
    }
}

/* One node; two devices may look at the same. */
static void
virCheckpointGraphReadNode(virCheckpointGraph *graph, const virCheckpointJson *entry)
{
    const virCheckpointJson *image = virCheckpointJsonGet(entry, "image");
    const virCheckpointJson *data =
        virCheckpointJsonPath(entry, "image.format-specific.data");
    const gchar *name = virCheckpointJsonGetString(entry, "node-name");
    virCheckpointNode *node;

    if (!name || g_hash_table_contains(graph->byName, name))
        return;
    node = g_new0(virCheckpointNode, 1);
    node->name = g_strdup(name);
    node->driver = g_strdup(virCheckpointJsonGetString(entry, "drv"));
    node->file = g_strdup(virCheckpointJsonGetString(entry, "file"));
    node->readOnly = virCheckpointJsonGetBoolean(entry, "ro", FALSE);
    virCheckpointJsonGetUint64(image, "virtual-size", &node->sizeBytes);
    virCheckpointJsonGetUint64(image, "cluster-size", &node->clusterSize);
    node->compatOld =
        g_strcmp0(virCheckpointJsonGetString(data, "compat"), "0.10") == 0;
    node->bitmaps =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointBitmapInfoFree);
    virCheckpointNodeReadBitmaps(node, virCheckpointJsonGet(entry, "dirty-bitmaps"));
    g_ptr_array_add(graph->nodes, node);
    g_hash_table_insert(graph->byName, node->name, node);
}

static void
virCheckpointGraphReadNodes(virCheckpointGraph *graph, const virCheckpointJson *list)
{
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(list); i++)
        virCheckpointGraphReadNode(graph, virCheckpointJsonIndex(list, i));
}

static void
virCheckpointGraphReadDevices(virCheckpointGraph *graph, const virCheckpointJson *list)
{
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(list); i++) {
        const virCheckpointJson *entry = virCheckpointJsonIndex(list, i);
        const gchar *qdev = virCheckpointJsonGetString(entry, "qdev");
        const gchar *top =
            virCheckpointJsonString(virCheckpointJsonPath(entry, "inserted.node-name"));

        if (!qdev || !top)
            continue;
        g_ptr_array_add(graph->qdevs, g_strdup(qdev));
        g_ptr_array_add(graph->tops, g_strdup(top));
    }
}

/* Edges name their ends by the numbers of this reply. */
static void
virCheckpointGraphReadEdges(virCheckpointGraph *graph, const virCheckpointJson *reply)
{
    g_autoptr(GHashTable) byId =
        g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    const virCheckpointJson *list = virCheckpointJsonGet(reply, "nodes");
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(list); i++) {
        const virCheckpointJson *entry = virCheckpointJsonIndex(list, i);
        const gchar *name = virCheckpointJsonGetString(entry, "name");
        gint64 id;

        if (g_strcmp0(virCheckpointJsonGetString(entry, "type"), "block-driver") == 0 &&
            name && virCheckpointJsonGetInt64(entry, "id", &id))
            g_hash_table_insert(byId, g_memdup2(&id, sizeof(id)), (gpointer)name);
    }
    list = virCheckpointJsonGet(reply, "edges");
    for (i = 0; i < virCheckpointJsonLength(list); i++) {
        const virCheckpointJson *entry = virCheckpointJsonIndex(list, i);
        const gchar *edge = virCheckpointJsonGetString(entry, "name");
        const gchar *from;
        const gchar *to;
        virCheckpointNode *node;
        gint64 parent;
        gint64 child;

        if (!virCheckpointJsonGetInt64(entry, "parent", &parent) ||
            !virCheckpointJsonGetInt64(entry, "child", &child))
            continue;
        from = g_hash_table_lookup(byId, &parent);
        to = g_hash_table_lookup(byId, &child);
        node = from ? g_hash_table_lookup(graph->byName, from) : NULL;
        if (!node || !to)
            continue;
        if (g_strcmp0(edge, "backing") == 0 && !node->backing)
            node->backing = g_strdup(to);
        else if (g_strcmp0(edge, "file") == 0 && !node->child)
            node->child = g_strdup(to);
    }
}

/*
 * A format node opened with options that its header does not say shows json:{...}: its
 * protocol node has the plain name.
 */
static void
virCheckpointGraphPlainFiles(virCheckpointGraph *graph)
{
    guint i;

    for (i = 0; i < graph->nodes->len; i++) {
        virCheckpointNode *node = g_ptr_array_index(graph->nodes, i);
        const virCheckpointNode *child = virCheckpointGraphNode(graph, node->child);

        if (!child || !node->file || !g_str_has_prefix(node->file, "json:") ||
            !child->file || g_str_has_prefix(child->file, "json:"))
            continue;
        g_free(node->file);
        node->file = g_strdup(child->file);
    }
}

/* Which device looks at which node, as text. */
static gchar *
virCheckpointGraphTops(const virCheckpointJson *list)
{
    GString *text = g_string_new(NULL);
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(list); i++) {
        const virCheckpointJson *entry = virCheckpointJsonIndex(list, i);
        const gchar *qdev = virCheckpointJsonGetString(entry, "qdev");
        const gchar *top =
            virCheckpointJsonString(virCheckpointJsonPath(entry, "inserted.node-name"));

        g_string_append_printf(text, "%s %s\n", qdev ? qdev : "", top ? top : "");
    }
    return g_string_free(text, FALSE);
}

static virCheckpointGraph *
virCheckpointGraphNew(void)
{
    virCheckpointGraph *graph = g_new0(virCheckpointGraph, 1);

    graph->nodes =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointNodeFree);
    graph->byName = g_hash_table_new(g_str_hash, g_str_equal);
    graph->qdevs = g_ptr_array_new_with_free_func(g_free);
    graph->tops = g_ptr_array_new_with_free_func(g_free);
    return graph;
}

virCheckpointGraph *
virCheckpointGraphQueryNodes(virCheckpointMonitor *monitor, GError **error)
{
    g_autoptr(virCheckpointJson) nodes = virCheckpointMonitorQueryNodes(monitor, error);
    virCheckpointGraph *graph;

    if (!nodes)
        return NULL;
    graph = virCheckpointGraphNew();
    virCheckpointGraphReadNodes(graph, nodes);
    return graph;
}

/* One try, after the devices were seen as @before; *@torn is set when a disk moved to
 * another node in between. */
static virCheckpointGraph *
virCheckpointGraphTry(virCheckpointMonitor *monitor,
                      const virCheckpointJson *before,
                      gboolean *torn,
                      GError **error)
{
    g_autoptr(virCheckpointGraph) graph = virCheckpointGraphNew();
    g_autoptr(virCheckpointJson) nodes = NULL;
    g_autoptr(virCheckpointJson) edges = NULL;
    g_autoptr(virCheckpointJson) after = NULL;
    g_autofree gchar *first = NULL;
    g_autofree gchar *last = NULL;

    if (!(nodes = virCheckpointMonitorQueryNodes(monitor, error)) ||
        !(edges = virCheckpointMonitorRun(monitor, "x-debug-query-block-graph", NULL,
                                          error)) ||
        !(after = virCheckpointMonitorRun(monitor, "query-block", NULL, error)))
        return NULL;
    first = virCheckpointGraphTops(before);
    last = virCheckpointGraphTops(after);
    *torn = !g_str_equal(first, last);
    virCheckpointGraphReadNodes(graph, nodes);
    virCheckpointGraphReadDevices(graph, after);
    virCheckpointGraphReadEdges(graph, edges);
    virCheckpointGraphPlainFiles(graph);
    return g_steal_pointer(&graph);
}

/* The whole graph, after the devices were seen as @seen (transfer full). */
static virCheckpointGraph *
virCheckpointGraphQueryAfter(virCheckpointMonitor *monitor,
                             virCheckpointJson *seen,
                             GError **error)
{
    g_autoptr(virCheckpointJson) before = seen;
    guint tries;

    for (tries = 0; tries < QUERY_TRIES; tries++) {
        g_autoptr(virCheckpointGraph) graph = NULL;
        gboolean torn;

        if (!before &&
            !(before = virCheckpointMonitorRun(monitor, "query-block", NULL, error)))
            return NULL;
        graph = virCheckpointGraphTry(monitor, before, &torn, error);
        if (!graph || !torn)
            return g_steal_pointer(&graph);
        g_clear_pointer(&before, virCheckpointJsonFree);
    }
    g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                        "the disks of the domain do not hold still");
    return NULL;
}

virCheckpointGraph *
virCheckpointGraphQuery(virCheckpointMonitor *monitor, GError **error)
{
    return virCheckpointGraphQueryAfter(monitor, NULL, error);
}

const virCheckpointNode *
virCheckpointGraphNode(const virCheckpointGraph *graph, const gchar *name)
{
    return name ? g_hash_table_lookup(graph->byName, name) : NULL;
}

const GPtrArray *
virCheckpointGraphNodes(const virCheckpointGraph *graph)
{
    return graph->nodes;
}

/* Filters do not hold data: what the device sees lies below them. */
static gboolean
virCheckpointDriverIsFilter(const gchar *driver)
{
    static const gchar *const filters[] = {
        "copy-on-read", "throttle",     "mirror_top",        "commit_top",
        "backup-top",   "compress",     "copy-before-write", "preallocate",
        "blkdebug",     "blklogwrites", "blkreplay",         "snapshot-access",
        NULL,
    };

    return driver && g_strv_contains(filters, driver);
}

static const virCheckpointNode *
virCheckpointGraphSkipFilters(const virCheckpointGraph *graph,
                              const virCheckpointNode *node)
{
    while (node && virCheckpointDriverIsFilter(node->driver))
        node = virCheckpointGraphNode(graph, node->child ? node->child : node->backing);
    return node;
}

/* TRUE if each device looks at a node with neither filter nor layer, so that this reply
 * is the whole picture of the disks.  A name in json: is only told by the node below.
 */
static gboolean
virCheckpointGraphIsFlat(const virCheckpointJson *blocks)
{
    gboolean any = FALSE;
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(blocks); i++) {
        const virCheckpointJson *inserted =
            virCheckpointJsonGet(virCheckpointJsonIndex(blocks, i), "inserted");
        const gchar *file = virCheckpointJsonGetString(inserted, "file");
        guint64 depth;

        if (!inserted)
            continue;
        if (!virCheckpointJsonGetString(inserted, "node-name") || !file ||
            g_str_has_prefix(file, "json:") ||
            !virCheckpointJsonGetUint64(inserted, "backing_file_depth", &depth) ||
            depth > 0 ||
            virCheckpointDriverIsFilter(virCheckpointJsonGetString(inserted, "drv")))
            return FALSE;
        any = TRUE;
    }
    return any;
}

virCheckpointGraph *
virCheckpointGraphQueryDisks(virCheckpointMonitor *monitor, GError **error)
{
    g_autoptr(virCheckpointJson) blocks =
        virCheckpointMonitorRun(monitor, "query-block", NULL, error);
    virCheckpointGraph *graph;
    gsize i;

    if (!blocks)
        return NULL;
    if (!virCheckpointGraphIsFlat(blocks))
        return virCheckpointGraphQueryAfter(monitor, g_steal_pointer(&blocks), error);
    graph = virCheckpointGraphNew();
    for (i = 0; i < virCheckpointJsonLength(blocks); i++)
        virCheckpointGraphReadNode(
            graph, virCheckpointJsonGet(virCheckpointJsonIndex(blocks, i), "inserted"));
    virCheckpointGraphReadDevices(graph, blocks);
    return graph;
}

/* "/machine/peripheral/virtio-disk0/virtio-backend" belongs to "virtio-disk0". */
static gboolean
virCheckpointGraphQdevHas(const gchar *qdev, const gchar *alias)
{
    g_auto(GStrv) parts = g_strsplit(qdev, "/", -1);

    return g_strv_contains((const gchar *const *)parts, alias);
}

const virCheckpointNode *
virCheckpointGraphTop(const virCheckpointGraph *graph, const gchar *alias)
{
    guint i;

    for (i = 0; alias && i < graph->qdevs->len; i++) {
        if (virCheckpointGraphQdevHas(g_ptr_array_index(graph->qdevs, i), alias))
            return virCheckpointGraphSkipFilters(
                graph,
                virCheckpointGraphNode(graph, g_ptr_array_index(graph->tops, i)));
    }
    if (graph->qdevs->len == 0)
        return virCheckpointGraphNode(graph, alias);
    return NULL;
}

const virCheckpointNode *
virCheckpointGraphBacking(const virCheckpointGraph *graph,
                          const virCheckpointNode *node)
{
    return virCheckpointGraphSkipFilters(graph,
                                         virCheckpointGraphNode(graph, node->backing));
}

const virCheckpointNode *
virCheckpointGraphLayer(const virCheckpointGraph *graph,
                        const virCheckpointNode *top,
                        const gchar *path)
{
    const virCheckpointNode *node;

    for (node = top; node && path; node = virCheckpointGraphBacking(graph, node)) {
        if (g_strcmp0(node->file, path) == 0)
            return node;
    }
    return NULL;
}

const virCheckpointBitmapInfo *
virCheckpointNodeBitmap(const virCheckpointNode *node, const gchar *name)
{
    guint i;

    for (i = 0; i < node->bitmaps->len; i++) {
        const virCheckpointBitmapInfo *info = g_ptr_array_index(node->bitmaps, i);

        if (g_str_equal(info->name, name))
            return info;
    }
    return NULL;
}

void
virCheckpointGraphForget(virCheckpointGraph *graph,
                         const gchar *node,
                         const gchar *name)
{
    virCheckpointNode *holder = g_hash_table_lookup(graph->byName, node);
    guint i;

    for (i = 0; holder && i < holder->bitmaps->len; i++) {
        const virCheckpointBitmapInfo *info = g_ptr_array_index(holder->bitmaps, i);

        if (g_str_equal(info->name, name)) {
            g_ptr_array_remove_index(holder->bitmaps, i);
            return;
        }
    }
}
