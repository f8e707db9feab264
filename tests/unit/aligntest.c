/*
 * aligntest.c: the disks of a checkpoint, settled against the domain's
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_def.h"
#include "checkpoint_error.h"

static virCheckpointDomainDisk testDisks[] = {
    {.target = "vda", .source = "/a/vda.qcow2", .qcow2 = TRUE},
    {.target = "vdb", .source = "/a/vdb.qcow2", .qcow2 = TRUE},
    {.target = "hda", .readOnly = TRUE, .empty = TRUE},
    {.target = "vde", .source = "/a/ro.qcow2", .readOnly = TRUE, .qcow2 = TRUE},
};

static virCheckpointDomainDisk testRaw = {
    .target = "vdc", .source = "/a/vdc.raw", .format = "raw"};

/* Aligns checkpoint "c" with these <disks>. */
static virCheckpointDef *
testAlign(const gchar *disks, gboolean withRaw, gboolean redefine, GError **error)
{
    g_autofree gchar *xml = g_strdup_printf("<domaincheckpoint><name>c</name>%s%s%s"
                                            "</domaincheckpoint>",
                                            disks ? "<disks>" : "", disks ? disks : "",
                                            disks ? "</disks>" : "");
    g_autoptr(virCheckpointDef) def = virCheckpointDefParse(xml, 0, NULL);
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    gsize i;

    g_assert_nonnull(def);
    for (i = 0; i < G_N_ELEMENTS(testDisks); i++)
        g_ptr_array_add(all, &testDisks[i]);
    if (withRaw)
        g_ptr_array_add(all, &testRaw);
    if (!virCheckpointDefAlignDisks(def, all, redefine, error))
        return NULL;
    return g_steal_pointer(&def);
}

/* "vda=c vdb=-": bitmap or none. */
static void
testAligns(const gchar *disks, gboolean redefine, const gchar *expected)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointDef) def = testAlign(disks, FALSE, redefine, &error);
    g_autoptr(GString) text = g_string_new(NULL);
    guint i;

    g_assert_no_error(error);
    for (i = 0; i < def->disks->len; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);

        g_assert_true(disk->type != VIR_CHECKPOINT_DISK_DEFAULT);
        g_assert_true((disk->type == VIR_CHECKPOINT_DISK_BITMAP) == !!disk->bitmap);
        g_string_append_printf(text, "%s%s=%s", i ? " " : "", disk->name,
                               disk->bitmap ? disk->bitmap : "-");
    }
    g_assert_cmpstr(text->str, ==, expected);
}

static void
testAlignFails(const gchar *disks, gboolean withRaw, const gchar *message)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(testAlign(disks, withRaw, FALSE, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED);
    g_assert_cmpstr(error->message, ==, message);
}

static void
testAlignDefaults(void)
{
    testAligns(NULL, FALSE, "vda=c vdb=c hda=- vde=-");
    testAligns("<disk name='vda'/>", FALSE, "vda=c vdb=- hda=- vde=-");
    testAligns("<disk name='/a/vdb.qcow2'/>", FALSE, "vda=- vdb=c hda=- vde=-");
    testAligns("<disk name='vda' checkpoint='no'/>", FALSE, "vda=- vdb=- hda=- vde=-");
    testAligns("<disk name='hda' checkpoint='no'/><disk name='vdb'/>"
               "<disk name='vda' checkpoint='bitmap' bitmap='c'/>",
               FALSE, "vda=c vdb=c hda=- vde=-");
}

static void
testAlignRedefine(void)
{
    testAligns(NULL, TRUE, "vda=- vdb=- hda=- vde=-");
    testAligns("<disk name='vda' bitmap='X'/>", TRUE, "vda=X vdb=- hda=- vde=-");
}

static void
testAlignErrors(void)
{
    testAlignFails("<disk name='vdz'/>", FALSE, "no disk named 'vdz'");
    testAlignFails("<disk name='/a/none'/>", FALSE, "no disk named '/a/none'");
    testAlignFails("<disk name='vda'/><disk name='/a/vda.qcow2'/>", FALSE,
                   "disk '/a/vda.qcow2' specified twice");
    testAlignFails("<disk name='hda'/>", FALSE, "disk 'hda' is empty or readonly");
    testAlignFails("<disk name='vda' bitmap=''/>", FALSE,
                   "bitmap for disk 'vda' must match checkpoint name 'c'");
    testAlignFails("<disk name='/a/ro.qcow2'/>", FALSE,
                   "disk 'vde' is empty or readonly");
    testAlignFails("<disk name='vda' bitmap='X'/>", FALSE,
                   "bitmap for disk 'vda' must match checkpoint name 'c'");
    testAlignFails(NULL, TRUE,
                   "checkpoint for disk vdc unsupported for storage type raw");
    testAlignFails("<disk name='vda'/><disk name='vdb'/><disk name='vdc'/>"
                   "<disk name='vdd'/><disk name='vde'/>",
                   FALSE, "too many disk checkpoint requests for domain");
}

static void
testAlignNoDisks(void)
{
    g_autoptr(GPtrArray) none = g_ptr_array_new();
    g_autoptr(virCheckpointDef) def = virCheckpointDefNew();
    g_autoptr(GError) error = NULL;

    def->name = g_strdup("c");
    g_assert_false(virCheckpointDefAlignDisks(def, none, FALSE, &error));
    g_assert_cmpstr(error->message, ==,
                    "domain must have at least one disk to perform checkpoints");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/align/defaults", testAlignDefaults);
    g_test_add_func("/align/redefine-keeps-out-what-is-not-mentioned",
                    testAlignRedefine);
    g_test_add_func("/align/errors-are-libvirt's", testAlignErrors);
    g_test_add_func("/align/a-domain-without-disks", testAlignNoDisks);
    return g_test_run();
}
