/*
 * mirrorrequesttest.c: what a mirror is asked for, and the XML it asks for
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_mirror_request.h"
#include "checkpoint_xml.h"

static void
testRequestCheck(void)
{
    static const struct {
        virCheckpointMirrorRequest request;
        gint code; /* 0: accepted */
    } cases[] = {
        {{.bitmap = "a", .flags = VIR_DOMAIN_BLOCK_COPY_REUSE_EXT}, 0},
        {{.bitmap = "a",
          .flags =
              VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB},
         0},
        {{.checkpoint = "a"}, 0},
        {{.checkpoint = "a", .granularity = 65536, .bufSize = 1 << 20}, 0},
        {{.checkpoint = "a", .granularity = 256}, VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .granularity = 1 << 27}, VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .bufSize = G_MAXUINT64}, VIR_ERR_OVERFLOW},
        {{.checkpoint = "a", .finish = TRUE}, 0},
        {{.checkpoint = "a", .finish = TRUE, .granularity = 65536},
         VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .finish = TRUE, .bufSize = 65536}, VIR_ERR_INVALID_ARG},
        {{.finish = TRUE}, VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .finish = TRUE, .verify = TRUE}, 0},
        {{.checkpoint = "a", .verify = TRUE}, VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .pivot = TRUE}, 0},
        {{.checkpoint = "a", .pivot = TRUE, .finish = TRUE}, VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .endCheckpoints = TRUE}, VIR_ERR_INVALID_ARG},
        {{.bitmap = "a",
          .endCheckpoints = TRUE,
          .flags = VIR_DOMAIN_BLOCK_COPY_REUSE_EXT},
         0},
        {{.bitmap = "a"}, VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .flags = VIR_DOMAIN_BLOCK_COPY_SHALLOW},
         VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .flags = 1U << 20}, VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .granularity = 3}, VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a",
          .finish = TRUE,
          .flags = VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES},
         VIR_ERR_INVALID_ARG},
        {{.checkpoint = "a", .flags = VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES}, 0},
        {{.checkpoint = "a/b"}, VIR_ERR_INVALID_ARG},
        {{.checkpoint = ""}, VIR_ERR_INVALID_ARG},
    };
    guint i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        gboolean ok = virCheckpointMirrorRequestCheck(&cases[i].request, &error);

        g_assert_true(ok == (cases[i].code == 0));
        if (!ok)
            g_assert_error(error, VIR_CHECKPOINT_ERROR, cases[i].code);
    }
}

static GPtrArray *
testTargets(void)
{
    GPtrArray *targets = g_ptr_array_new();

    g_ptr_array_add(targets, (gpointer) "sda");
    g_ptr_array_add(targets, (gpointer) "vda");
    g_ptr_array_add(targets, (gpointer) "vdb");
    return targets;
}

static void
testSnapshotXml(void)
{
    g_autoptr(GPtrArray) targets = testTargets();
    g_autofree gchar *xml = virCheckpointMirrorSnapshotXml("vda", "/i/a&b", targets);

    g_assert_cmpstr(xml, ==,
                    "<domainsnapshot>\n"
                    "  <disks>\n"
                    "    <disk name='vda' snapshot='external' type='file'>\n"
                    "      <driver type='qcow2'/>\n"
                    "      <source file='/i/a&amp;b'/>\n"
                    "    </disk>\n"
                    "    <disk name='sda' snapshot='no'/>\n"
                    "    <disk name='vdb' snapshot='no'/>\n"
                    "  </disks>\n"
                    "</domainsnapshot>\n");
}

#define DOMAIN(disk)                                                                   \
    "<domain><devices><disk><source file='/other'/></disk>" disk "</devices></domain>"

static void
testXmlReady(void)
{
    const gchar *xml =
        DOMAIN("<disk><target dev='vda'/><mirror job='copy' ready='yes'/></disk>"
               "<disk><target dev='vdb'/><mirror job='active-commit'/></disk>");

    g_assert_true(virCheckpointMirrorXmlReady(xml, "vda", "copy"));
    g_assert_false(virCheckpointMirrorXmlReady(xml, "vda", "active-commit"));
    g_assert_false(virCheckpointMirrorXmlReady(xml, "vdb", "active-commit"));
    g_assert_false(virCheckpointMirrorXmlReady(xml, "vdc", "copy"));
}

static void
testCheckpointDef(void)
{
    g_autoptr(GPtrArray) targets = testTargets();
    g_autoptr(virCheckpointDef) def =
        virCheckpointMirrorCheckpointDef("c1", "vda", targets);
    guint i;

    g_assert_cmpstr(def->name, ==, "c1");
    g_assert_cmpuint(def->disks->len, ==, 3);
    for (i = 0; i < 3; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);

        g_assert_cmpstr(disk->name, ==, g_ptr_array_index(targets, i));
        g_assert_cmpint(disk->type, ==,
                        i == 1 ? VIR_CHECKPOINT_DISK_BITMAP : VIR_CHECKPOINT_DISK_NONE);
    }
}

static void
testProgress(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    guint64 lastCur = 0;
    guint64 lastEnd = 0;
    guint i;

    for (i = 0; i < 10000; i++) {
        guint64 cur = g_rand_int(rand);
        guint64 end = lastEnd + (i % 3 ? 0 : (guint64)g_rand_int(rand));

        virCheckpointMirrorProgress(lastCur, lastEnd, &cur, &end);
        g_assert_cmpuint(cur, <, end);
        if (lastEnd > 0)
            g_assert_true((gdouble)cur / (gdouble)end + 1e-9 >=
                          MIN((gdouble)lastCur / (gdouble)lastEnd,
                              (gdouble)(end - 1) / (gdouble)end));
        lastCur = cur;
        lastEnd = end;
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mirror-request/flags-and-parameters-are-judged",
                    testRequestCheck);
    g_test_add_func("/mirror-request/snapshot-lists-every-disk", testSnapshotXml);
    g_test_add_func("/mirror-request/ready-is-read-from-the-domain", testXmlReady);
    g_test_add_func("/mirror-request/checkpoint-covers-one-disk", testCheckpointDef);
    g_test_add_func("/mirror-request/progress-only-grows", testProgress);
    return g_test_run();
}
