/*
 * mirrordesttest.c: the <disk> that a mirror copies to
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_mirror_dest.h"
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
        {"<disk type='network'><source protocol='nbd' name='x'/></disk>",
         VIR_ERR_NO_SOURCE},
        {"<disk type='volume'><source pool='p' volume='v'/></disk>",
         VIR_ERR_CONFIG_UNSUPPORTED},
        {"<disk><driver type='vmdk'/><source file='/x'/></disk>",
         VIR_ERR_CONFIG_UNSUPPORTED},
        {"<disk><source file='/x'/><encryption format='luks'/></disk>",
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

/* Addresses are those that QEMU shows for its nodes. */
static void
testDestNames(void)
{
#define NBD(host) "<disk type='network'><source protocol='nbd' " host "</source></disk>"
    static const struct {
        const gchar *xml;
        const gchar *path;
        gboolean local;
        gboolean aside;
    } cases[] = {
        {"<disk type='block'><source dev='/dev/x'/></disk>", "/dev/x", TRUE, FALSE},
        {"<disk><source file='/x'><encryption format='luks'/></source></disk>", "/x",
         TRUE, TRUE},
        {NBD("name='a'><host transport='unix' socket='/s'/>"),
         "nbd+unix:///a?socket=/s", FALSE, TRUE},
        {NBD("><host transport='unix' socket='/s'/>"), "nbd+unix://?socket=/s", FALSE,
         TRUE},
        {NBD("name='a'><host name='h' port='1'/>"), "nbd://h:1/a", FALSE, TRUE},
        {NBD("><host name='h'/>"), "nbd://h:10809", FALSE, TRUE},
        {"<disk type='network'><source protocol='rbd' name='p/i'/></disk>", "rbd:p/i",
         FALSE, TRUE},
    };
    guint i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(virCheckpointMirrorDest) dest =
            virCheckpointMirrorDestParse(cases[i].xml, &error);

        g_assert_no_error(error);
        g_assert_cmpstr(dest->path, ==, cases[i].path);
        g_assert_cmpint(dest->local, ==, cases[i].local);
        g_assert_cmpint(dest->aside, ==, cases[i].aside);
    }
}

static void
testAsBlock(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree gchar *xml = virCheckpointMirrorDestAsBlock(
        "<disk type='file'><source file='/dev/x'/></disk>", &error);

    g_assert_no_error(error);
    g_assert_nonnull(strstr(xml, "type='block'"));
    g_assert_nonnull(strstr(xml, "<source dev='/dev/x'/>"));
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
#define TO_S "<disk type='file'><driver type='qcow2'/><source file='/s'/></disk>"

static gchar *
testReplacedBy(const gchar *xml, const gchar *from, const gchar *to, const gchar *xpath)
{
    g_autoptr(GError) error = NULL;
    g_autofree gchar *changed = virCheckpointMirrorReplaceSource(xml, from, to, &error);
    g_autoptr(xmlDoc) doc = NULL;

    g_assert_no_error(error);
    g_assert_nonnull(changed);
    doc = virCheckpointXmlParse(changed, "test", "domain", &error);
    g_assert_no_error(error);
    return virCheckpointXmlString(xmlDocGetRootElement(doc), xpath);
}

static gchar *
testReplaced(const gchar *xml, const gchar *xpath)
{
    return testReplacedBy(xml, "/o", TO_S, xpath);
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

    g_assert_null(virCheckpointMirrorReplaceSource(DOMAIN(""), "/o", TO_S, &error));
    g_assert_no_error(error);
    g_assert_null(virCheckpointMirrorReplaceSource("<domain", "/o", TO_S, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_DETAIL);
}

/* To a network disk and back; what a source says of itself goes with it. */
static void
testReplaceType(void)
{
    const gchar *file = DOMAIN("<disk type='file'><driver name='qemu' type='qcow2'/>"
                               "<source file='/o'><seclabel model='dac'/></source>"
                               "</disk>");
    const gchar *nbd = "<disk type='network'><driver type='raw'/><source protocol='nbd'"
                       " name='a' tls='yes'><host name='h' port='1'/></source></disk>";
    g_autofree gchar *to = virCheckpointMirrorDestXml("/dev/x", "qcow2", TRUE);
    g_autofree gchar *host =
        testReplacedBy(file, "/o", nbd, "./devices/disk[2]/source/host/@name");
    g_autofree gchar *type = testReplacedBy(file, "/o", nbd, "./devices/disk[2]/@type");
    g_autofree gchar *format =
        testReplacedBy(file, "/o", nbd, "./devices/disk[2]/driver/@type");
    g_autofree gchar *whole =
        g_strconcat("<domain><devices>", nbd, "</devices></domain>", NULL);
    g_autofree gchar *dev =
        testReplacedBy(whole, "nbd://h:1/a", to, "./devices/disk/source/@dev");
    g_autofree gchar *block =
        testReplacedBy(whole, "nbd://h:1/a", to, "./devices/disk[@type='block']/@type");
    g_autofree gchar *label =
        testReplacedBy(file, "/o", TO_S, "./devices/disk[2]/source/seclabel/@model");

    g_assert_cmpstr(host, ==, "h");
    g_assert_cmpstr(type, ==, "network");
    g_assert_cmpstr(format, ==, "raw");
    g_assert_cmpstr(dev, ==, "/dev/x");
    g_assert_cmpstr(block, ==, "block");
    g_assert_cmpstr(label, ==, "dac");
}

/* A block device below an overlay gets back what its source said. */
static void
testReplaceByStore(void)
{
    const gchar *xml =
        DOMAIN("<disk type='file'><source file='/o'/><backingStore type='block'>"
               "<format type='qcow2'/><source dev='/dev/s'><seclabel model='x'/>"
               "</source><backingStore/></backingStore></disk>");
    g_autofree gchar *to = virCheckpointMirrorDestXml("/dev/s", "qcow2", TRUE);
    g_autofree gchar *label =
        testReplacedBy(xml, "/o", to,
                       "./devices/disk[@type='block']/source[@dev='/dev/s']/seclabel/"
                       "@model");

    g_assert_cmpstr(label, ==, "x");
}

static void
testXmlSource(void)
{
    const gchar *xml = DOMAIN("<disk><source dev='/dev/x'/><target dev='vda'/></disk>");
    g_autofree gchar *found = virCheckpointMirrorXmlSource(xml, "vda");

    g_assert_cmpstr(found, ==, "/dev/x");
    g_assert_null(virCheckpointMirrorXmlSource(xml, "vdb"));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mirror-dest/destination-is-read", testDestParse);
    g_test_add_func("/mirror-dest/others-are-refused", testDestRefuse);
    g_test_add_func("/mirror-dest/wrong-root-has-libvirts-words", testDestRootText);
    g_test_add_func("/mirror-dest/every-source-has-a-name", testDestNames);
    g_test_add_func("/mirror-dest/a-device-is-said-to-be-one", testAsBlock);
    g_test_add_func("/mirror-dest/copy-ends-the-chain", testCopyXml);
    g_test_add_func("/mirror-dest/source-is-replaced-and-chain-kept",
                    testReplaceSource);
    g_test_add_func("/mirror-dest/nothing-to-replace-is-no-error", testReplaceNothing);
    g_test_add_func("/mirror-dest/source-of-another-type", testReplaceType);
    g_test_add_func("/mirror-dest/source-from-below-the-overlay", testReplaceByStore);
    g_test_add_func("/mirror-dest/source-of-a-disk", testXmlSource);
    return g_test_run();
}
