/*
 * treetest.c: what follows from the parents of checkpoints
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_tree.h"

/* Adds "NAME<PARENT DISKS TIME": parent "" for none, disks comma-separated. */
static virCheckpointRecord *
testAdd(GPtrArray *records,
        const gchar *name,
        const gchar *parent,
        const gchar *disks,
        gint64 created)
{
    virCheckpointRecord *record = virCheckpointRecordNew();
    g_auto(GStrv) targets = g_strsplit(disks, ",", -1);
    gsize i;

    record->id = virCheckpointRecordNewId();
    record->state = VIR_CHECKPOINT_RECORD_READY;
    record->def = virCheckpointDefNew();
    record->def->name = g_strdup(name);
    record->def->parent = *parent ? g_strdup(parent) : NULL;
    record->def->creationTime = created;
    for (i = 0; targets[i]; i++)
        g_ptr_array_add(record->segments, virCheckpointSegmentNew(targets[i]));
    /* Any order will do: put each one in front. */
    g_ptr_array_insert(records, 0, record);
    return record;
}

static GPtrArray *
testRecords(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointRecordFree);
}

/* At rest: of each disk only @owner has a bitmap. */
static void
testRest(GPtrArray *records, const gchar *target, const gchar *owner)
{
    guint i;

    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);
        virCheckpointSegment *segment = virCheckpointRecordSegment(record, target);

        if (!segment)
            continue;
        g_ptr_array_set_size(segment->bitmaps, 0);
        if (g_strcmp0(record->def->name, owner) == 0)
            g_ptr_array_add(segment->bitmaps, g_strdup("virtcheckpoint.x"));
    }
}

/* c1 - c2 - c3 - c4; vdb is skipped by c2 and c4. */
static GPtrArray *
testLine(void)
{
    GPtrArray *records = testRecords();

    testAdd(records, "c1", "", "vda,vdb", 10);
    testAdd(records, "c2", "c1", "vda", 10);
    testAdd(records, "c3", "c2", "vda,vdb", 10);
    testAdd(records, "c4", "c3", "vda", 5); /* the clock went back */
    testRest(records, "vda", "c4");
    testRest(records, "vdb", "c3");
    return records;
}

static void
testNames(GPtrArray *list, const gchar *expected)
{
    g_autoptr(GString) text = g_string_new(NULL);
    guint i;

    for (i = 0; i < list->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(list, i);

        g_string_append_printf(text, "%s%s", i ? " " : "", record->def->name);
    }
    g_assert_cmpstr(text->str, ==, expected);
    g_ptr_array_unref(list);
}

static void
testChain(GPtrArray *records,
          const gchar *from,
          const gchar *target,
          const gchar *expected)
{
    virCheckpointRecord *record = virCheckpointTreeByName(records, from);

    testNames(virCheckpointTreeChain(records, record, target), expected);
}

static const gchar *
testName(virCheckpointRecord *record)
{
    return record ? record->def->name : NULL;
}

static void
testTreeLine(void)
{
    g_autoptr(GPtrArray) records = testLine();
    virCheckpointRecord *c3 = virCheckpointTreeByName(records, "c3");

    testNames(virCheckpointTreeSorted(records), "c1 c2 c3 c4");
    testNames(virCheckpointTreeChildren(records, "c2"), "c3");
    testNames(virCheckpointTreeChildren(records, "c4"), "");
    testNames(virCheckpointTreeDescendants(records, "c2"), "c3 c4");
    testNames(virCheckpointTreeDescendants(records, "none"), "");
    g_assert_cmpstr(testName(virCheckpointTreeCurrent(records)), ==, "c4");
    g_assert_cmpstr(testName(virCheckpointTreeParent(records, c3)), ==, "c2");
    g_assert_true(virCheckpointTreeById(records, c3->id) == c3);
    g_assert_null(virCheckpointTreeById(records, "x"));
    g_assert_null(virCheckpointTreeByName(records, "x"));
}

static void
testTreeSegments(void)
{
    g_autoptr(GPtrArray) records = testLine();
    virCheckpointRecord *c3 = virCheckpointTreeByName(records, "c3");
    virCheckpointRecord *c1 = virCheckpointTreeByName(records, "c1");

    testChain(records, "c1", "vda", "c1 c2 c3 c4");
    testChain(records, "c4", "vda", "c4");
    testChain(records, "c1", "vdb", "c1 c3");
    testChain(records, "c3", "vdb", "c3");
    testChain(records, "c2", "vdb", "");
    testChain(records, "c1", "vdc", "");
    g_assert_cmpstr(testName(virCheckpointTreeNewest(records, "vda")), ==, "c4");
    g_assert_cmpstr(testName(virCheckpointTreeNewest(records, "vdb")), ==, "c3");
    g_assert_null(virCheckpointTreeNewest(records, "vdc"));
    g_assert_cmpstr(testName(virCheckpointTreePrevious(records, c3, "vdb")), ==, "c1");
    g_assert_cmpstr(testName(virCheckpointTreePrevious(records, c3, "vda")), ==, "c2");
    g_assert_null(virCheckpointTreePrevious(records, c1, "vda"));
}

static void
testTreeCreating(void)
{
    g_autoptr(GPtrArray) records = testLine();

    testRest(records, "vda", "c3");
    virCheckpointTreeByName(records, "c4")->state = VIR_CHECKPOINT_RECORD_CREATING;
    g_assert_cmpstr(testName(virCheckpointTreeNewest(records, "vda")), ==, "c3");
    g_assert_cmpstr(testName(virCheckpointTreeCurrent(records)), ==, "c3");
    testChain(records, "c1", "vda", "c1 c2 c3");
    testChain(records, "c4", "vda", "");
    /* One that is being deleted still holds its bits. */
    virCheckpointTreeByName(records, "c3")->state = VIR_CHECKPOINT_RECORD_DELETING;
    g_assert_cmpstr(testName(virCheckpointTreeNewest(records, "vda")), ==, "c3");
}

static void
testTreeBranches(void)
{
    g_autoptr(GPtrArray) records = testRecords();

    testAdd(records, "r", "", "vda", 1);
    testAdd(records, "b", "r", "vda", 3);
    testAdd(records, "a", "r", "vda", 3);
    testAdd(records, "a1", "a", "vda", 9);
    testAdd(records, "b1", "b", "vda", 4);
    testAdd(records, "q", "gone", "vdb", 2);
    testRest(records, "vda", "a1");
    testNames(virCheckpointTreeSorted(records), "r a a1 b b1 q");
    testNames(virCheckpointTreeChildren(records, "r"), "a b");
    testNames(virCheckpointTreeDescendants(records, "r"), "a a1 b b1");
    g_assert_cmpstr(testName(virCheckpointTreeCurrent(records)), ==, "a1");
    g_assert_cmpstr(testName(virCheckpointTreeNewest(records, "vda")), ==, "a1");
    testChain(records, "r", "vda", "r a a1");
    /* The other branch does not lead to the newest: not a short chain, none. */
    testChain(records, "b", "vda", "");
}

/* A record in the middle cannot be read: what is older has no chain. */
static void
testTreeHole(void)
{
    g_autoptr(GPtrArray) records = testLine();
    virCheckpointRecord *c2 = virCheckpointTreeByName(records, "c2");

    g_ptr_array_remove(records, c2);
    testNames(virCheckpointTreeSorted(records), "c1 c3 c4");
    testChain(records, "c3", "vda", "c3 c4");
    testChain(records, "c1", "vda", "");
    testChain(records, "c1", "vdb", "");
}

/* The newest record cannot be read: nobody has a chain, and nobody has a short one. */
static void
testTreeNoNewest(void)
{
    g_autoptr(GPtrArray) records = testLine();

    g_ptr_array_remove(records, virCheckpointTreeByName(records, "c4"));
    testChain(records, "c3", "vda", "");
    testChain(records, "c1", "vda", "");
    testChain(records, "c1", "vdb", "c1 c3");
}

static void
testTreeCircle(void)
{
    g_autoptr(GPtrArray) records = testRecords();
    virCheckpointRecord *a = testAdd(records, "a", "c", "vda", 1);

    testAdd(records, "b", "a", "vda", 2);
    testAdd(records, "c", "b", "vda", 3);
    testAdd(records, "s", "s", "vda", 4);
    testNames(virCheckpointTreeSorted(records), "a b c s");
    testNames(virCheckpointTreeDescendants(records, "b"), "c a");
    g_assert_null(virCheckpointTreePrevious(records, a, "vdb"));
    g_assert_cmpstr(testName(virCheckpointTreePrevious(records, a, "vda")), ==, "c");
    testChain(records, "a", "vda", "");
}

static void
testTreeCheckParent(void)
{
    g_autoptr(GPtrArray) records = testLine();
    g_autoptr(GError) error = NULL;

    g_assert_true(virCheckpointTreeCheckParent(records, "c1", NULL, &error));
    g_assert_true(virCheckpointTreeCheckParent(records, "c4", "c1", &error));
    g_assert_true(virCheckpointTreeCheckParent(records, "new", "c4", &error));
    g_assert_no_error(error);
    g_assert_false(virCheckpointTreeCheckParent(records, "c1", "c1", &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG);
    g_assert_cmpstr(error->message, ==, "cannot set moment c1 as its own parent");
    g_clear_error(&error);
    g_assert_false(virCheckpointTreeCheckParent(records, "c1", "zz", &error));
    g_assert_cmpstr(error->message, ==, "parent zz for moment c1 not found");
    g_clear_error(&error);
    g_assert_false(virCheckpointTreeCheckParent(records, "c1", "c3", &error));
    g_assert_cmpstr(error->message, ==, "parent c3 would create cycle to c1");
}

static void
testTreeMany(void)
{
    g_autoptr(GPtrArray) records = testRecords();
    g_autoptr(GPtrArray) chain = NULL;
    g_autofree gchar *parent = g_strdup("");
    gint i;

    for (i = 0; i < 3000; i++) {
        gchar *name = g_strdup_printf("c%d", i);

        testAdd(records, name, parent, "vda", 7);
        g_free(parent);
        parent = name;
    }
    testRest(records, "vda", "c2999");
    chain =
        virCheckpointTreeChain(records, virCheckpointTreeByName(records, "c0"), "vda");
    g_assert_cmpuint(chain->len, ==, 3000);
    g_assert_cmpstr(testName(virCheckpointTreeCurrent(records)), ==, "c2999");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/tree/line", testTreeLine);
    g_test_add_func("/tree/segments-and-skipped-disks", testTreeSegments);
    g_test_add_func("/tree/creating-does-not-count", testTreeCreating);
    g_test_add_func("/tree/branches", testTreeBranches);
    g_test_add_func("/tree/a-hole-gives-no-short-chain", testTreeHole);
    g_test_add_func("/tree/without-the-newest-no-chain", testTreeNoNewest);
    g_test_add_func("/tree/a-circle-ends", testTreeCircle);
    g_test_add_func("/tree/parents-of-redefined", testTreeCheckParent);
    g_test_add_func("/tree/three-thousand-in-a-line", testTreeMany);
    return g_test_run();
}
