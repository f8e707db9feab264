/*
 * deftest.c: checkpoint XML is read and printed as libvirt 9.0 does
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_def.h"
#include "checkpoint_error.h"

#include <string.h>

static const gchar *testDataDir;

/* The golden pairs were made by libvirt 9.0.0's test driver. */
static void
testDefGolden(gconstpointer opaque)
{
    const gchar *name = opaque;
    g_autofree gchar *in = g_strconcat(testDataDir, "/", name, ".in.xml", NULL);
    g_autofree gchar *out = g_strconcat(testDataDir, "/", name, ".out.xml", NULL);
    g_autofree gchar *xml = NULL;
    g_autofree gchar *expected = NULL;
    g_autofree gchar *actual = NULL;
    g_autofree gchar *again = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointDef) def = NULL;
    g_autoptr(virCheckpointDef) copy = NULL;

    g_assert_true(g_file_get_contents(in, &xml, NULL, NULL));
    def = virCheckpointDefParse(xml, VIR_CHECKPOINT_DEF_PARSE_REDEFINE, &error);
    g_assert_no_error(error);
    copy = virCheckpointDefCopy(def);
    actual = virCheckpointDefFormat(copy, 0);
    if (g_getenv("VIR_CHECKPOINT_TEST_UPDATE")) {
        g_assert_true(g_file_set_contents(out, actual, -1, NULL));
        g_test_fail();
        return;
    }
    g_assert_true(g_file_get_contents(out, &expected, NULL, NULL));
    g_assert_cmpstr(actual, ==, expected);

    g_clear_pointer(&def, virCheckpointDefFree);
    def = virCheckpointDefParse(actual, VIR_CHECKPOINT_DEF_PARSE_REDEFINE, &error);
    g_assert_no_error(error);
    again = virCheckpointDefFormat(def, 0);
    g_assert_cmpstr(again, ==, expected);
}

static void
testDefPlain(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointDef) def =
        virCheckpointDefParse("<domaincheckpoint><name>c1</name><description/>"
                              "<parent><name>p</name></parent>"
                              "<creationTime>7</creationTime><domain/>"
                              "<disks><!-- x --><disk name='vda'/>"
                              "<disk name='/a/b' bitmap='B' size='5'/>"
                              "<disk name='vdc' checkpoint='no'/></disks>"
                              "</domaincheckpoint>",
                              0, &error);
    g_autofree gchar *text = NULL;
    g_autofree gchar *sized = NULL;

    g_assert_no_error(error);
    g_assert_cmpstr(def->name, ==, "c1");
    g_assert_null(def->description);
    g_assert_null(def->parent);
    g_assert_null(def->domain);
    g_assert_cmpint(def->creationTime, ==, 0);
    g_assert_cmpuint(def->disks->len, ==, 3);
    text = virCheckpointDefFormat(def, 0);
    g_assert_cmpstr(text, ==,
                    "<domaincheckpoint>\n"
                    "  <name>c1</name>\n"
                    "  <disks>\n"
                    "    <disk name='vda'/>\n"
                    "    <disk name='/a/b' bitmap='B'/>\n"
                    "    <disk name='vdc' checkpoint='no'/>\n"
                    "  </disks>\n"
                    "</domaincheckpoint>\n");
    sized = virCheckpointDefFormat(def, VIR_CHECKPOINT_DEF_FORMAT_SIZE);
    g_assert_nonnull(strstr(sized, "<disk name='/a/b' bitmap='B' size='5'/>"));
}

static void
testDefEmpty(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointDef) def =
        virCheckpointDefParse("<domaincheckpoint/>", 0, &error);

    g_assert_no_error(error);
    g_assert_null(def->name);
    g_assert_null(def->disks);
}

/* The domain's text comes back as it was given, except for the indent around it. */
static void
testDefDomainText(void)
{
    g_autoptr(virCheckpointDef) def = virCheckpointDefNew();
    g_autoptr(virCheckpointDef) back = NULL;
    g_autofree gchar *text = NULL;
    g_autofree gchar *brief = NULL;

    def->name = g_strdup("c");
    def->creationTime = 1;
    virCheckpointDefSetDomain(def, "<domain type='kvm'>\n"
                                   "  <description>a\n  b &gt;\n\n</description>\n"
                                   "  <empty> </empty>\n"
                                   "  <x y='&lt;'/>\n"
                                   "</domain>\n");
    text = virCheckpointDefFormat(def, 0);
    g_assert_cmpstr(text, ==,
                    "<domaincheckpoint>\n"
                    "  <name>c</name>\n"
                    "  <creationTime>1</creationTime>\n"
                    "  <domain type='kvm'>\n"
                    "    <description>a\n  b &gt;\n\n</description>\n"
                    "    <empty> </empty>\n"
                    "    <x y='&lt;'/>\n"
                    "  </domain>\n"
                    "</domaincheckpoint>\n");
    back = virCheckpointDefParse(text, VIR_CHECKPOINT_DEF_PARSE_REDEFINE, NULL);
    def->domain[strlen(def->domain) - 1] = '\0';
    g_assert_cmpstr(back->domain, ==, def->domain);
    brief = virCheckpointDefFormat(def, VIR_CHECKPOINT_DEF_FORMAT_NO_DOMAIN);
    g_assert_null(strstr(brief, "<domain "));
}

static void
testDefRefuse(const gchar *body, guint flags, gint code, const gchar *message)
{
    g_autofree gchar *xml =
        g_strdup_printf("<domaincheckpoint>%s</domaincheckpoint>", body);
    g_autoptr(GError) error = NULL;

    g_assert_null(virCheckpointDefParse(xml, flags, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, code);
    if (message)
        g_assert_cmpstr(error->message, ==, message);
}

static void
testDefMalformed(void)
{
    const guint redefine = VIR_CHECKPOINT_DEF_PARSE_REDEFINE;
    g_autoptr(GError) error = NULL;

    g_assert_null(virCheckpointDefParse("<x/>", 0, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR);
    g_assert_cmpstr(error->message, ==,
                    "expecting root element of 'domaincheckpoint', not 'x'");
    testDefRefuse("<name>", 0, VIR_ERR_XML_DETAIL, NULL);
    testDefRefuse("<bogus/>", 0, VIR_ERR_XML_INVALID_SCHEMA,
                  "Element domaincheckpoint has extra content: bogus; right is name, "
                  "description, parent, creationTime, disks, domain, each once");
    testDefRefuse("<disks><disk name='vda' size='18446744073709551616'/></disks>", 0,
                  VIR_ERR_XML_INVALID_SCHEMA, NULL);
    testDefRefuse("<name>a</name>", redefine, VIR_ERR_INTERNAL_ERROR,
                  "missing creationTime from existing checkpoint");
    testDefRefuse("<creationTime>1</creationTime>", redefine, VIR_ERR_XML_ERROR,
                  "a redefined checkpoint must have a name");
}

/* Each of these the schema refuses, too: scripts/check-schema.sh. */
static void
testDefAgainstSchema(void)
{
    g_autofree gchar *folder = g_build_filename(testDataDir, "bad", NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const gchar *name = NULL;
    guint count = 0;

    g_assert_nonnull(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree gchar *path = g_build_filename(folder, name, NULL);
        g_autofree gchar *xml = NULL;
        g_autoptr(GError) error = NULL;

        g_assert_true(g_file_get_contents(path, &xml, NULL, NULL));
        if (virCheckpointDefParse(xml, 0, &error))
            g_error("'%s' was accepted", name);
        g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_INVALID_SCHEMA);
        count++;
    }
    g_assert_cmpuint(count, >, 40);
}

static void
testDefNames(void)
{
    g_autofree gchar *long200 = g_strnfill(200, 'x');
    g_autofree gchar *long201 = g_strnfill(201, 'x');
    g_autofree gchar *long4096 = g_strnfill(4096, '/');
    const gchar *const good[] = {"c1", "a.b", "-x", "_", "0", "CON", long200};
    const gchar *const bad[] = {"",       ".",        "..",    ".x",    "../x",
                                "a/b",    "/",        "a b",   " a",    "a\n",
                                "a\x1b[", "\xc3\xa9", "a\xff", "a&b",   "a'b",
                                "a\\b",   "a%2fb",    long201, long4096};
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_true(virCheckpointDefCheckName(good[i], &error));
        g_assert_no_error(error);
    }
    for (i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree gchar *escaped = g_markup_escape_text(bad[i], -1);
        g_autofree gchar *body = g_strdup_printf("<name>%s</name>", escaped);

        g_assert_false(virCheckpointDefCheckName(bad[i], &error));
        g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG);
        g_assert_cmpuint(strlen(error->message), <, 400);
        g_assert_true(g_utf8_validate(error->message, -1, NULL));
        if (g_utf8_validate(bad[i], -1, NULL) && !strchr(bad[i], '\x1b'))
            testDefRefuse(body, 0, VIR_ERR_XML_INVALID_SCHEMA, NULL);
        else
            testDefRefuse(body, 0, VIR_ERR_XML_DETAIL, NULL);
    }
}

int
main(int argc, char **argv)
{
    static const gchar *const goldens[] = {
        "own-output",
        "redefine-domain",
        "redefine-parent",
    };
    g_autofree gchar *dir = NULL;
    gsize i;

    g_test_init(&argc, &argv, NULL);
    g_assert_nonnull(g_getenv("TEST_DATA"));
    dir = g_build_filename(g_getenv("TEST_DATA"), "defdata", NULL);
    testDataDir = dir;
    for (i = 0; i < G_N_ELEMENTS(goldens); i++) {
        g_autofree gchar *path = g_strconcat("/def/golden/", goldens[i], NULL);

        g_test_add_data_func(path, goldens[i], testDefGolden);
    }
    g_test_add_func("/def/without-redefine", testDefPlain);
    g_test_add_func("/def/empty", testDefEmpty);
    g_test_add_func("/def/domain-text-comes-back", testDefDomainText);
    g_test_add_func("/def/malformed-is-refused", testDefMalformed);
    g_test_add_func("/def/against-the-schema", testDefAgainstSchema);
    g_test_add_func("/def/names", testDefNames);
    return g_test_run();
}
