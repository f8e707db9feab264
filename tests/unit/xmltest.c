/*
 * xmltest.c: hostile XML is refused early, text comes back as libvirt prints it
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_xml.h"

#include <string.h>

static void
testXmlRefuse(const gchar *xml, gint code, const gchar *message)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(virCheckpointXmlParse(xml, "(test)", "a", &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, code);
    g_assert_nonnull(strstr(error->message, message));
}

static void
testXmlMalformed(void)
{
    testXmlRefuse("", VIR_ERR_XML_DETAIL, "(test):");
    testXmlRefuse("x", VIR_ERR_XML_DETAIL, "(test):1: ");
    testXmlRefuse("<a>\n<b></a>", VIR_ERR_XML_DETAIL, "(test):2: ");
    testXmlRefuse("<a/><a/>", VIR_ERR_XML_DETAIL, "(test):1: Extra content");
    testXmlRefuse("<a>\xff</a>", VIR_ERR_XML_DETAIL, "(test):1: ");
    testXmlRefuse("<a b='1' b='2'/>", VIR_ERR_XML_DETAIL, "Attribute b redefined");
    testXmlRefuse("<a>&#1;</a>", VIR_ERR_XML_DETAIL, "(test):1: ");
    testXmlRefuse("<b/>", VIR_ERR_XML_ERROR,
                  "unexpected root element <b>, expecting <a>");
}

static void
testXmlDtd(void)
{
    const gchar *reason = "(test):1: document type is not allowed";

    testXmlRefuse("<!DOCTYPE a><a/>", VIR_ERR_XML_DETAIL, reason);
    testXmlRefuse("<!DOCTYPE a SYSTEM 'http://127.0.0.1:9/x'><a/>", VIR_ERR_XML_DETAIL,
                  reason);
    testXmlRefuse("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
                  VIR_ERR_XML_DETAIL, reason);
    testXmlRefuse("<!DOCTYPE a [<!ENTITY a0 'x'><!ENTITY a1 '&a0;&a0;&a0;&a0;&a0;'>"
                  "<!ENTITY a2 '&a1;&a1;&a1;&a1;&a1;'>]><a b='&a2;'>&a2;</a>",
                  VIR_ERR_XML_DETAIL, reason);
    /* Without a declaration there is no entity to expand. */
    testXmlRefuse("<a>&x;</a>", VIR_ERR_XML_DETAIL, "Entity 'x' not defined");
}

static void
testXmlSize(void)
{
    g_autofree gchar *pad = g_strnfill(VIR_CHECKPOINT_XML_MAX_BYTES, ' ');
    g_autofree gchar *xml = g_strconcat("<a/>", pad, NULL);
    g_autoptr(GString) deep = g_string_new("<a>");
    gint i;

    testXmlRefuse(xml, VIR_ERR_XML_ERROR, "(test) is larger than");
    for (i = 0; i < 100 * 1000; i++)
        g_string_append(deep, "<b>");
    testXmlRefuse(deep->str, VIR_ERR_XML_DETAIL, "depth");
}

static void
testXmlReading(void)
{
    g_autoptr(xmlDoc) doc =
        virCheckpointXmlParse("<a n='18446744073709551615' m=' 1' o='-1' e=''>"
                              "<b>x &amp; y</b><b/><c><![CDATA[<z>]]></c></a>",
                              "(test)", NULL, NULL);
    xmlNode *root = xmlDocGetRootElement(doc);
    g_autoptr(GPtrArray) all = virCheckpointXmlNodes(root, "./b");
    g_autofree gchar *first = virCheckpointXmlString(root, "./b");
    g_autofree gchar *cast = virCheckpointXmlString(root, "string(./c)");
    g_autofree gchar *empty = virCheckpointXmlString(root, "./@e");
    guint64 number = 7;

    g_assert_cmpuint(all->len, ==, 2);
    g_assert_cmpstr(first, ==, "x & y");
    g_assert_cmpstr(cast, ==, "<z>");
    g_assert_cmpstr(empty, ==, "");
    g_assert_null(virCheckpointXmlString(root, "string(./none)"));
    g_assert_null(virCheckpointXmlString(root, "./none"));
    g_assert_null(virCheckpointXmlString(root, "not xpath("));
    g_assert_null(virCheckpointXmlString(NULL, "./b"));
    g_assert_nonnull(virCheckpointXmlNode(root, "./c"));
    g_assert_null(virCheckpointXmlNode(root, "./d"));
    g_assert_false(virCheckpointXmlUint64(root, "./@m", &number));
    g_assert_false(virCheckpointXmlUint64(root, "./@o", &number));
    g_assert_false(virCheckpointXmlUint64(root, "./@e", &number));
    g_assert_cmpuint(number, ==, 7);
    g_assert_true(virCheckpointXmlUint64(root, "./@n", &number));
    g_assert_cmpuint(number, ==, G_MAXUINT64);
}

static void
testXmlWriting(void)
{
    g_autoptr(GString) buf = g_string_new(NULL);

    virCheckpointXmlEscape(buf, "<&>'\"\t\n\x01\x1b\xff\xef\xbf\xbe");
    g_assert_cmpstr(buf->str, ==,
                    "&lt;&amp;&gt;&apos;&quot;\t\n\xef\xbf\xbd\xef\xbf\xbd");
    g_string_truncate(buf, 0);
    virCheckpointXmlAppend(buf,
                           "<a b='%s' c='%u' d='%d%%' e='%" G_GUINT64_FORMAT
                           "' f='%" G_GINT64_FORMAT "' g='%x'>%s</a>",
                           "x\n'y", 4000000000U, -1, G_MAXUINT64, G_MININT64, 255U,
                           "p\nq<");
    g_assert_cmpstr(buf->str, ==,
                    "<a b='x&#10;&apos;y' c='4000000000' d='-1%' "
                    "e='18446744073709551615' f='-9223372036854775808' g='ff'>"
                    "p\nq&lt;</a>");
}

/* What libvirt printed comes back the same, whatever the indent around it. */
static void
testXmlNodeText(void)
{
    const gchar *const texts[] = {
        "<a/>",
        "<a b='1' c='x &amp; &apos;y&apos;'/>",
        "<domain type='kvm' id='1' xmlns:qemu='http://libvirt.org/qemu/1.0'>\n"
        "  <title>two\nlines &lt;b&gt;</title>\n"
        "  <metadata>\n"
        "    <app:x xmlns:app=\"http://example.org/\" app:k=\"v\">\n"
        "      <app:y/>\n"
        "    </app:x>\n"
        "  </metadata>\n"
        "  <blank> </blank>\n"
        "  <qemu:commandline>\n"
        "    <qemu:arg value='-v'/>\n"
        "  </qemu:commandline>\n"
        "</domain>",
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autofree gchar *xml = g_strconcat("<x>\n    ", texts[i], "\n</x>", NULL);
        g_autoptr(GError) error = NULL;
        g_autoptr(xmlDoc) doc = virCheckpointXmlParse(xml, "(test)", "x", &error);
        g_autofree gchar *text = NULL;

        g_assert_no_error(error);
        text = virCheckpointXmlNodeText(
            virCheckpointXmlNode(xmlDocGetRootElement(doc), "./*"));
        g_assert_cmpstr(text, ==, texts[i]);
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xml/malformed-is-refused", testXmlMalformed);
    g_test_add_func("/xml/no-dtd-no-entities", testXmlDtd);
    g_test_add_func("/xml/size-and-depth", testXmlSize);
    g_test_add_func("/xml/reading", testXmlReading);
    g_test_add_func("/xml/writing", testXmlWriting);
    g_test_add_func("/xml/element-as-text", testXmlNodeText);
    return g_test_run();
}
