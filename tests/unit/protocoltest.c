/*
 * protocoltest.c: payloads of libvirt's RPC <-> structs
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_wire.h"

#include <string.h>

#define DOMAIN_WORDS "00000004 72706366 11111111 22224333 84445555 55555555 00000013 "

/** Bytes of a dump in hex words. */
static GByteArray *
testHex(const gchar *text)
{
    GByteArray *bytes = g_byte_array_new();

    for (; *text; text++) {
        guint8 byte;

        if (*text == ' ')
            continue;
        byte = (guint8)(g_ascii_xdigit_value(text[0]) << 4 |
                        g_ascii_xdigit_value(text[1]));
        g_byte_array_append(bytes, &byte, 1);
        text++;
    }
    return bytes;
}

static void
testSame(GBytes *got, const GByteArray *want)
{
    g_assert_nonnull(got);
    g_assert_cmpmem(g_bytes_get_data(got, NULL), g_bytes_get_size(got), want->data,
                    want->len);
}

static void
testError(void)
{
    /* libvirt's answer to a look-up of 'no-such'. */
    g_autoptr(GByteArray) wire =
        testHex("0000002a 0000000a 00000001 00000038 446f6d61 696e206e 6f742066 "
                "6f756e64 3a206e6f 20646f6d 61696e20 77697468 206d6174 6368696e "
                "67206e61 6d652027 6e6f2d73 75636827 00000002 00000000 00000001 "
                "00000014 446f6d61 696e206e 6f742066 6f756e64 3a202573 00000001 "
                "00000026 6e6f2064 6f6d6169 6e207769 7468206d 61746368 696e6720 "
                "6e616d65 20276e6f 2d737563 68270000 00000000 ffffffff ffffffff "
                "00000000");
    g_auto(virCheckpointProtoError) error = {0};
    g_autoptr(GBytes) again = NULL;

    g_assert_true(virCheckpointWireDecode(virCheckpointProtoError, wire->data,
                                          wire->len, &error));
    g_assert_cmpint(error.code, ==, 42);
    g_assert_cmpint(error.domain, ==, VIR_CHECKPOINT_FROM_QEMU);
    g_assert_cmpstr(virCheckpointWireOptString(error.message), ==,
                    "Domain not found: no domain with matching name 'no-such'");
    g_assert_cmpstr(virCheckpointWireOptString(error.str1), ==, "Domain not found: %s");
    g_assert_null(virCheckpointWireOptString(error.str3));
    g_assert_null(error.dom);
    again = virCheckpointWireEncode(virCheckpointProtoError, &error);
    testSame(again, wire);
}

static void
testEvent(void)
{
    g_autoptr(GByteArray) wire =
        testHex("00000017 " DOMAIN_WORDS "00000003 76646100 00000005 00000002");
    g_auto(virCheckpointProtoBlockJob) event = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GBytes) again = NULL;

    g_assert_true(virCheckpointWireDecode(virCheckpointProtoBlockJob, wire->data,
                                          wire->len, &event));
    virCheckpointWireUuidFormat(event.dom.uuid, uuid);
    g_assert_cmpint(event.callback, ==, 23);
    g_assert_cmpstr(event.dom.name, ==, "rpcf");
    g_assert_cmpstr(uuid, ==, "11111111-2222-4333-8444-555555555555");
    g_assert_cmpint(event.dom.id, ==, 19);
    g_assert_cmpstr(event.disk, ==, "vda");
    again = virCheckpointWireEncode(virCheckpointProtoBlockJob, &event);
    testSame(again, wire);
}

static GByteArray *
testCopyWire(const gchar *params)
{
    g_autofree gchar *hex =
        g_strconcat(DOMAIN_WORDS "00000003 76646100 00000007 3c646973 6b2f3e00", params,
                    "00000004", NULL);

    return testHex(hex);
}

static void
testCopy(void)
{
    g_autoptr(GByteArray) wire =
        testCopyWire("00000002 00000006 6269746d 61700000 00000007 00000002 62300000"
                     "00000009 62616e64 77696474 68000000 00000004 00000001 00000002");
    g_auto(virCheckpointProtoCopy) copy = {0};
    g_autoptr(GBytes) again = NULL;

    g_assert_true(
        virCheckpointWireDecode(virCheckpointProtoCopy, wire->data, wire->len, &copy));
    g_assert_cmpuint(copy.params.params_len, ==, 2);
    g_assert_cmpstr(copy.params.params_val[0].field, ==, "bitmap");
    g_assert_cmpstr(copy.params.params_val[0].value.virCheckpointProtoValue_u.s, ==,
                    "b0");
    g_assert_cmpuint(copy.params.params_val[1].value.virCheckpointProtoValue_u.ul, ==,
                     G_GUINT64_CONSTANT(0x100000002));
    g_assert_cmpuint(copy.flags, ==, 4);
    again = virCheckpointWireEncode(virCheckpointProtoCopy, &copy);
    testSame(again, wire);
}

static void
testTolerated(void)
{
    /* Padding that is not zero, an option that is not 1, and bytes behind the end. */
    g_autoptr(GByteArray) wire =
        testHex(DOMAIN_WORDS "00000003 766461ff 00000007 00000001 62ffffff 00000000"
                             "00000001 00000002 deadbeef");
    g_auto(virCheckpointProtoRebase) args = {0};

    g_assert_true(virCheckpointWireDecode(virCheckpointProtoRebase, wire->data,
                                          wire->len, &args));
    g_assert_cmpstr(args.path, ==, "vda");
    g_assert_cmpstr(virCheckpointWireOptString(args.base), ==, "b");
    g_assert_cmpuint(args.flags, ==, 2);
}

static void
testRefused(void)
{
    GString *many = g_string_new("00000011");
    g_autoptr(GByteArray) tag = testCopyWire("00000001 00000001 7a000000 00000008");
    g_autoptr(GByteArray) good = testCopyWire("00000000");
    g_autoptr(GByteArray) tooMany = NULL;
    g_autoptr(GByteArray) huge = testHex("ffffffff 00000000");
    g_auto(virCheckpointProtoText) text = {0};
    virCheckpointProtoCopy copy;
    gsize length;
    gint i;

    for (i = 0; i < 17; i++)
        g_string_append(many, "00000001 7a000000 00000001 00000001");
    tooMany = testCopyWire(many->str);
    g_string_free(many, TRUE);
    memset(&copy, 0, sizeof(copy));
    g_assert_false(
        virCheckpointWireDecode(virCheckpointProtoCopy, tag->data, tag->len, &copy));
    g_assert_false(virCheckpointWireDecode(virCheckpointProtoCopy, tooMany->data,
                                           tooMany->len, &copy));
    for (length = 0; length < good->len; length++)
        g_assert_false(
            virCheckpointWireDecode(virCheckpointProtoCopy, good->data, length, &copy));
    g_assert_true(
        virCheckpointWireDecode(virCheckpointProtoCopy, good->data, good->len, &copy));
    virCheckpointProtoCopyClear(&copy);
    g_assert_false(
        virCheckpointWireDecode(virCheckpointProtoText, huge->data, huge->len, &text));
    g_assert_null(text.text);
}

static void
testList(void)
{
    virCheckpointProtoCheckpoint *all =
        g_new0(virCheckpointProtoCheckpoint, VIR_CHECKPOINT_PROTO_LIST_MAX + 1);
    virCheckpointProtoList list = {0};
    g_autoptr(GBytes) bytes = NULL;
    guint i;

    for (i = 0; i <= VIR_CHECKPOINT_PROTO_LIST_MAX; i++) {
        all[i].name = (gchar *)"c";
        all[i].dom.name = (gchar *)"d";
    }
    list.checkpoints.checkpoints_val = all;
    list.checkpoints.checkpoints_len = VIR_CHECKPOINT_PROTO_LIST_MAX;
    bytes = virCheckpointWireEncode(virCheckpointProtoList, &list);
    g_assert_nonnull(bytes);
    list.checkpoints.checkpoints_len++;
    g_assert_null(virCheckpointWireEncode(virCheckpointProtoList, &list));
    g_free(all);
}

static void
testUuid(void)
{
    static const gchar *const wrong[] = {"", "1111", "g1111111222243338444555555555555",
                                         "11111111-2222-4333-8444-5555555555555"};
    virCheckpointProtoUuid uuid;
    gchar text[VIR_CHECKPOINT_UUID_TEXT];
    gsize i;

    g_assert_true(
        virCheckpointWireUuidParse(" 1111111122224333-8444 55555555ABCD\n", uuid));
    virCheckpointWireUuidFormat(uuid, text);
    g_assert_cmpstr(text, ==, "11111111-2222-4333-8444-55555555abcd");
    for (i = 0; i < G_N_ELEMENTS(wrong); i++)
        g_assert_false(virCheckpointWireUuidParse(wrong[i], uuid));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/protocol/captured-error-round-trips", testError);
    g_test_add_func("/protocol/captured-event-round-trips", testEvent);
    g_test_add_func("/protocol/copy-with-unknown-parameter-round-trips", testCopy);
    g_test_add_func("/protocol/what-libvirt-tolerates-is-tolerated", testTolerated);
    g_test_add_func("/protocol/limits-and-short-payloads-are-refused", testRefused);
    g_test_add_func("/protocol/list-over-the-limit-cannot-be-encoded", testList);
    g_test_add_func("/protocol/uuid-in-any-spelling", testUuid);
    return g_test_run();
}
