/*
 * checkpoint_tree.c: relations between the checkpoints of one domain
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Records name their parent; everything else follows from that and is never stored, so
 * it cannot disagree: children, the current checkpoint, which segments make up the
 * changes since a checkpoint, and which record owns the active bitmap of a disk.
 *
 * Checkpoints that we make form a line.  Branches come from redefining a parent; then
 * the leaf that has a bitmap, and of those the newest, counts.  A parent that is not
 * there makes its child a root, and a circle (a damaged store) is walked once at most.
 * Whoever cannot be reached from the newest record of a disk, one with a bitmap, has an
 * empty chain: an answer that is never too short.
 */

#include "config.h"

#include "checkpoint_tree.h"

#include "checkpoint_error.h"

/* Look-up tables over one array of records, for walks. */
typedef struct virCheckpointTreeIndex {
    GHashTable *byName; /* name -> virCheckpointRecord* */
    GHashTable
        *children; /* name -> GPtrArray of virCheckpointRecord*, sorted; or NULL */
} virCheckpointTreeIndex;

/* By creation time, then by name. */
static gint
virCheckpointTreeCompare(gconstpointer a, gconstpointer b)
{
    const virCheckpointRecord *left = *(virCheckpointRecord *const *)a;
    const virCheckpointRecord *right = *(virCheckpointRecord *const *)b;

    if (left->def->creationTime != right->def->creationTime)
        return left->def->creationTime < right->def->creationTime ? -1 : 1;
    return g_strcmp0(left->def->name, right->def->name);
}

static void
virCheckpointTreeIndexFree(virCheckpointTreeIndex *index)
{
    g_hash_table_unref(index->byName);
    g_clear_pointer(&index->children, g_hash_table_unref);
    g_free(index);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointTreeIndex, virCheckpointTreeIndexFree)

static virCheckpointTreeIndex *
virCheckpointTreeIndexNew(GPtrArray *records)
{
    virCheckpointTreeIndex *index = g_new0(virCheckpointTreeIndex, 1);
    guint i;

    index->byName = g_hash_table_new(g_str_hash, g_str_equal);
    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);

        g_hash_table_insert(index->byName, record->def->name, record);
    }
    return index;
}

/* Those who walk down need the children, too. */
static virCheckpointTreeIndex *
virCheckpointTreeIndexNewDown(GPtrArray *records)
{
    virCheckpointTreeIndex *index = virCheckpointTreeIndexNew(records);
    GHashTableIter iter;
    gpointer list = NULL;
    guint i;

    index->children = g_hash_table_new_full(g_str_hash, g_str_equal, NULL,
                                            (GDestroyNotify)g_ptr_array_unref);
    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);

        if (!record->def->parent)
            continue;
        list = g_hash_table_lookup(index->children, record->def->parent);
        if (!list) {
            list = g_ptr_array_new();
            g_hash_table_insert(index->children, record->def->parent, list);
        }
        g_ptr_array_add(list, record);
    }
    g_hash_table_iter_init(&iter, index->children);
    while (g_hash_table_iter_next(&iter, NULL, &list))
        g_ptr_array_sort(list, virCheckpointTreeCompare);
    return index;
}

static virCheckpointRecord *
virCheckpointTreeIndexParent(virCheckpointTreeIndex *index,
                             const virCheckpointRecord *record)
{
    return record->def->parent ? g_hash_table_lookup(index->byName, record->def->parent)
                               : NULL;
}

/* Appends @record and what is below it, parents first; @seen stops circles. */
static void
virCheckpointTreeWalk(virCheckpointTreeIndex *index,
                      virCheckpointRecord *record,
                      GHashTable *seen,
                      GPtrArray *out)
{
    g_autoptr(GPtrArray) stack = g_ptr_array_new();

    /* A stack of our own: a thousand checkpoints in a line are common. */
    g_ptr_array_add(stack, record);
    while (stack->len > 0) {
        virCheckpointRecord *top = g_ptr_array_steal_index(stack, stack->len - 1);
        GPtrArray *list = NULL;
        guint i;

        if (!g_hash_table_add(seen, top))
            continue;
        g_ptr_array_add(out, top);
        list = g_hash_table_lookup(index->children, top->def->name);
        for (i = list ? list->len : 0; i > 0; i--)
            g_ptr_array_add(stack, g_ptr_array_index(list, i - 1));
    }
}

virCheckpointRecord *
virCheckpointTreeByName(GPtrArray *records, const gchar *name)
{
    guint i;

    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);

        if (g_strcmp0(record->def->name, name) == 0)
            return record;
    }
    return NULL;
}

virCheckpointRecord *
virCheckpointTreeById(GPtrArray *records, const gchar *id)
{
    guint i;

    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);

        if (g_strcmp0(record->id, id) == 0)
            return record;
    }
    return NULL;
}

virCheckpointRecord *
virCheckpointTreeParent(GPtrArray *records, const virCheckpointRecord *record)
{
    return record->def->parent ? virCheckpointTreeByName(records, record->def->parent)
                               : NULL;
}

GPtrArray *
virCheckpointTreeChildren(GPtrArray *records, const gchar *name)
{
    GPtrArray *children = g_ptr_array_new();
    guint i;

    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);

        if (record->def->parent && g_str_equal(record->def->parent, name))
            g_ptr_array_add(children, record);
    }
    g_ptr_array_sort(children, virCheckpointTreeCompare);
    return children;
}

GPtrArray *
virCheckpointTreeDescendants(GPtrArray *records, const gchar *name)
{
    g_autoptr(virCheckpointTreeIndex) index = virCheckpointTreeIndexNewDown(records);
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    virCheckpointRecord *record = g_hash_table_lookup(index->byName, name);
    GPtrArray *list = g_ptr_array_new();

    if (!record)
        return list;
    virCheckpointTreeWalk(index, record, seen, list);
    g_ptr_array_remove_index(list, 0);
    return list;
}

GPtrArray *
virCheckpointTreeSorted(GPtrArray *records)
{
    g_autoptr(virCheckpointTreeIndex) index = virCheckpointTreeIndexNewDown(records);
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) roots = g_ptr_array_new();
    g_autoptr(GPtrArray) others = g_ptr_array_new();
    GPtrArray *sorted = g_ptr_array_new();
    guint i;

    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);

        g_ptr_array_add(virCheckpointTreeIndexParent(index, record) ? others : roots,
                        record);
    }
    g_ptr_array_sort(roots, virCheckpointTreeCompare);
    g_ptr_array_sort(others, virCheckpointTreeCompare);
    for (i = 0; i < roots->len; i++)
        virCheckpointTreeWalk(index, g_ptr_array_index(roots, i), seen, sorted);
    /* Only what hangs on a circle is left to be found from here. */
    for (i = 0; i < others->len; i++)
        virCheckpointTreeWalk(index, g_ptr_array_index(others, i), seen, sorted);
    return sorted;
}

/* TRUE if @record counts for what comes next: its transaction is known to have run. */
static gboolean
virCheckpointTreeCounts(const virCheckpointRecord *record, const gchar *target)
{
    return record->state != VIR_CHECKPOINT_RECORD_CREATING &&
           (!target || virCheckpointRecordSegment(record, target));
}

/* The names of those below which one counts: a set, borrowing. */
static GHashTable *
virCheckpointTreeWithLater(virCheckpointTreeIndex *index,
                           GPtrArray *records,
                           const gchar *target)
{
    GHashTable *names = g_hash_table_new(g_str_hash, g_str_equal);
    guint i;

    for (i = 0; i < records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(records, i);

        if (!virCheckpointTreeCounts(record, target))
            continue;
        /* Up to where another one has been: each is passed once, circles too. */
        while (record && record->def->parent &&
               g_strcmp0(record->def->parent, record->def->name) != 0 &&
               g_hash_table_add(names, record->def->parent))
            record = g_hash_table_lookup(index->byName, record->def->parent);
    }
    return names;
}

/* TRUE if @record has a bitmap of @target that may still record. */
static gboolean
virCheckpointTreeHasBitmap(const virCheckpointRecord *record, const gchar *target)
{
    const virCheckpointSegment *segment = virCheckpointRecordSegment(record, target);

    return segment && segment->bitmaps->len > 0;
}

/* TRUE if @record rather than @last is the last one.  Several have no later one only in
 * branches, or when one between them cannot be read; then having a bitmap says more
 * than the clock does. */
static gboolean
virCheckpointTreeIsLater(const virCheckpointRecord *record,
                         const virCheckpointRecord *last,
                         const gchar *target)
{
    if (!last)
        return TRUE;
    if (target && virCheckpointTreeHasBitmap(record, target) !=
                      virCheckpointTreeHasBitmap(last, target))
        return virCheckpointTreeHasBitmap(record, target);
    return virCheckpointTreeCompare(&record, &last) > 0;
}

/* The last of those that count and have no later one; @target NULL: of any disk. */
static virCheckpointRecord *
virCheckpointTreeLast(virCheckpointTreeIndex *index,
                      GPtrArray *records,
                      const gchar *target)
{
    g_autoptr(GHashTable) withLater =
        virCheckpointTreeWithLater(index, records, target);
    virCheckpointRecord *last = NULL;
    guint i;

    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);

        if (virCheckpointTreeCounts(record, target) &&
            !g_hash_table_contains(withLater, record->def->name) &&
            virCheckpointTreeIsLater(record, last, target))
            last = record;
    }
    return last;
}

virCheckpointRecord *
virCheckpointTreeCurrent(GPtrArray *records)
{
    g_autoptr(virCheckpointTreeIndex) index = virCheckpointTreeIndexNew(records);

    return virCheckpointTreeLast(index, records, NULL);
}

virCheckpointRecord *
virCheckpointTreeNewest(GPtrArray *records, const gchar *target)
{
    g_autoptr(virCheckpointTreeIndex) index = virCheckpointTreeIndexNew(records);

    return virCheckpointTreeLast(index, records, target);
}

/* The nearest ancestor that covers @target. */
static virCheckpointRecord *
virCheckpointTreeIndexPrevious(virCheckpointTreeIndex *index,
                               const virCheckpointRecord *record,
                               const gchar *target)
{
    guint left = g_hash_table_size(index->byName);
    virCheckpointRecord *parent = virCheckpointTreeIndexParent(index, record);

    /* No path is longer than there are records, unless it is a circle. */
    for (; parent && left > 0; left--) {
        if (virCheckpointRecordSegment(parent, target))
            return parent;
        parent = virCheckpointTreeIndexParent(index, parent);
    }
    return NULL;
}

virCheckpointRecord *
virCheckpointTreePrevious(GPtrArray *records,
                          const virCheckpointRecord *record,
                          const gchar *target)
{
    g_autoptr(virCheckpointTreeIndex) index = virCheckpointTreeIndexNew(records);

    return virCheckpointTreeIndexPrevious(index, record, target);
}

static void
virCheckpointTreeReverse(GPtrArray *list)
{
    guint i;

    for (i = 0; i < list->len / 2; i++) {
        gpointer first = list->pdata[i];

        list->pdata[i] = list->pdata[list->len - 1 - i];
        list->pdata[list->len - 1 - i] = first;
    }
}

GPtrArray *
virCheckpointTreeChain(GPtrArray *records,
                       const virCheckpointRecord *from,
                       const gchar *target)
{
    g_autoptr(virCheckpointTreeIndex) index = virCheckpointTreeIndexNew(records);
    virCheckpointRecord *record = virCheckpointTreeLast(index, records, target);
    GPtrArray *chain = g_ptr_array_new();

    /* Where nothing records, changes are missing: the newest record may be one that
     * cannot be read. */
    if (record && !virCheckpointTreeHasBitmap(record, target))
        return chain;
    /* Newest first until @from; the other way would have to choose a branch. */
    while (record && chain->len < records->len) {
        g_ptr_array_add(chain, record);
        if (g_str_equal(record->id, from->id)) {
            virCheckpointTreeReverse(chain);
            return chain;
        }
        record = virCheckpointTreeIndexPrevious(index, record, target);
    }
    g_ptr_array_set_size(chain, 0);
    return chain;
}

gboolean
virCheckpointTreeCheckParent(GPtrArray *records,
                             const gchar *name,
                             const gchar *parent,
                             GError **error)
{
    g_autoptr(virCheckpointTreeIndex) index = virCheckpointTreeIndexNew(records);
    virCheckpointRecord *up = NULL;
    guint left = records->len;

    if (!parent)
        return TRUE;
    if (g_str_equal(parent, name)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "cannot set moment %s as its own parent", name);
        return FALSE;
    }
    up = g_hash_table_lookup(index->byName, parent);
    if (!up) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "parent %s for moment %s not found", parent, name);
        return FALSE;
    }
    for (; up && left > 0; left--) {
        if (g_str_equal(up->def->name, name)) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                        "parent %s would create cycle to %s", parent, name);
            return FALSE;
        }
        up = virCheckpointTreeIndexParent(index, up);
    }
    return TRUE;
}
