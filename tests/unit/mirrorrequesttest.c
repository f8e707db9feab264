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

#define DEST                                                                           \
    "<disk type='file'><driver name='qemu' type='raw' cache='none'/>"                  \
    "<source file='/t/a.raw'/></disk>"

static void
testDestParse(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointMirrorDest) dest =
        virCheckpointMirrorDestParse(DEST, &error);
    g_autoptr(virCheckpointMirrorDest) bare = NULL;

    g_assert_no_error(error);
    g_assert_cmpstr(dest->path, ==, "/t/a.raw");
    g_assert_cmpstr(dest->format, ==, "raw");
    bare = virCheckpointMirrorDestParse("<disk><source file='/x'/></disk>", &error);
    g_assert_no_error(error);
    g_assert_cmpstr(bare->path, ==, "/x");
    g_assert_null(bare->format);
}

static void
testDestRefuse(void)
{
    static const struct {
        const gchar *xml;
        gint code;
    } cases[] = {
        {"<foo/>", VIR_ERR_XML_ERROR},
        {"<disk", VIR_ERR_XML_DETAIL},
        {"<disk type='file'/>", VIR_ERR_NO_SOURCE},
        {"<disk type='file'><source file=''/></disk>", VIR_ERR_NO_SOURCE},
        {"<disk type='file'><source file='rel'/></disk>", VIR_ERR_INVALID_ARG},
        {"<disk type='block'><source dev='/dev/x'/></disk>",
         VIR_ERR_CONFIG_UNSUPPORTED},
        {"<disk type='network'><source protocol='nbd' name='x'/></disk>",
         VIR_ERR_CONFIG_UNSUPPORTED},
        {"<disk><driver type='vmdk'/><source file='/x'/></disk>",
         VIR_ERR_CONFIG_UNSUPPORTED},
        {"<disk><source file='/x'><encryption format='luks'/></source></disk>",
         VIR_ERR_CONFIG_UNSUPPORTED},
        {"<disk><source file='/x'><slices/></source></disk>",
         VIR_ERR_CONFIG_UNSUPPORTED},
    };
    guint i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(virCheckpointMirrorDestParse(cases[i].xml, &error));
        g_assert_error(error, VIR_CHECKPOINT_ERROR, cases[i].code);
    }
}

static void
testDestRootText(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(virCheckpointMirrorDestParse("<foo/>", &error));
    g_assert_cmpstr(error->message, ==, "expecting root element of 'disk', not 'foo'");
}

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
        {{.checkpoint = "a", .finish = TRUE, .granularity = 65536}, 0},
        {{.finish = TRUE}, VIR_ERR_INVALID_ARG},
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

static void
testCopyXml(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree gchar *kept = virCheckpointMirrorCopyXml(DEST, "raw", &error);
    g_autofree gchar *made = NULL;

    g_assert_no_error(error);
    g_assert_nonnull(strstr(kept, "cache='none'"));
    g_assert_nonnull(strstr(kept, "<backingStore/>"));
    made = virCheckpointMirrorCopyXml(
        "<disk><source file='/x'/><backingStore type='file'><source file='/y'/>"
        "</backingStore></disk>",
        "qcow2", &error);
    g_assert_no_error(error);
    g_assert_nonnull(strstr(made, "type='qcow2'"));
    g_assert_nonnull(strstr(made, "type='file'"));
    g_assert_null(strstr(made, "/y"));
    g_assert_nonnull(strstr(made, "<backingStore/>"));
}

#define DOMAIN(disk)                                                                   \
    "<domain><devices><disk><source file='/other'/></disk>" disk "</devices></domain>"

static gchar *
testReplaced(const gchar *xml, const gchar *xpath)
{
    g_autoptr(GError) error = NULL;
    g_autofree gchar *changed =
        virCheckpointMirrorReplaceSource(xml, "/o", "/s", "qcow2", &error);
    g_autoptr(xmlDoc) doc = NULL;

    g_assert_no_error(error);
    g_assert_nonnull(changed);
    doc = virCheckpointXmlParse(changed, "test", "domain", &error);
    g_assert_no_error(error);
    return virCheckpointXmlString(xmlDocGetRootElement(doc), xpath);
}

static void
testReplaceSource(void)
{
    const gchar *plain = DOMAIN("<disk><driver name='qemu' type='qcow2'/>"
                                "<source file='/o'/></disk>");
    const gchar *chain =
        DOMAIN("<disk><driver name='qemu' type='qcow2'/><source file='/o'/>"
               "<backingStore type='file'><format type='qcow2'/><source file='/s'/>"
               "<backingStore type='file'><source file='/golden'/></backingStore>"
               "</backingStore></disk>");
    const gchar *foreign =
        DOMAIN("<disk><source file='/o'/><backingStore type='file'>"
               "<source file='/b'/><backingStore/></backingStore></disk>");
    g_autofree gchar *source = testReplaced(plain, "./devices/disk[2]/source/@file");
    g_autofree gchar *other = testReplaced(plain, "./devices/disk[1]/source/@file");
    g_autofree gchar *top = testReplaced(chain, "./devices/disk[2]/source/@file");
    g_autofree gchar *below =
        testReplaced(chain, "./devices/disk[2]/backingStore/source/@file");
    g_autofree gchar *deeper =
        testReplaced(chain, "./devices/disk[2]/backingStore/backingStore");
    g_autofree gchar *none =
        testReplaced(foreign, "./devices/disk[2]/backingStore/source/@file");

    g_assert_cmpstr(source, ==, "/s");
    g_assert_cmpstr(other, ==, "/other");
    g_assert_cmpstr(top, ==, "/s");
    g_assert_cmpstr(below, ==, "/golden");
    g_assert_null(deeper);
    g_assert_null(none);
}

static void
testReplaceNothing(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(
        virCheckpointMirrorReplaceSource(DOMAIN(""), "/o", "/s", "qcow2", &error));
    g_assert_no_error(error);
    g_assert_null(
        virCheckpointMirrorReplaceSource("<domain", "/o", "/s", "qcow2", &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_DETAIL);
}

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
    g_test_add_func("/mirror-request/destination-is-read", testDestParse);
    g_test_add_func("/mirror-request/other-destinations-are-refused", testDestRefuse);
    g_test_add_func("/mirror-request/wrong-root-has-libvirts-words", testDestRootText);
    g_test_add_func("/mirror-request/flags-and-parameters-are-judged",
                    testRequestCheck);
    g_test_add_func("/mirror-request/snapshot-lists-every-disk", testSnapshotXml);
    g_test_add_func("/mirror-request/copy-ends-the-chain", testCopyXml);
    g_test_add_func("/mirror-request/source-is-replaced-and-chain-kept",
                    testReplaceSource);
    g_test_add_func("/mirror-request/nothing-to-replace-is-no-error",
                    testReplaceNothing);
    g_test_add_func("/mirror-request/ready-is-read-from-the-domain", testXmlReady);
    g_test_add_func("/mirror-request/checkpoint-covers-one-disk", testCheckpointDef);
    g_test_add_func("/mirror-request/progress-only-grows", testProgress);
    return g_test_run();
}
