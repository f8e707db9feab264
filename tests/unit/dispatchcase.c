/*
 * dispatchcase.c: calls of one client and what becomes of them
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "dispatchcase.h"

#include <string.h>

void
testOpen(TestDispatch *test, const gchar *names)
{
    memset(test, 0, sizeof(*test));
    test->engine = fakeEngineNew(names);
    test->dispatch = virCheckpointDispatchNew(test->engine);
    test->engine->dispatch = test->dispatch;
    test->client = fakeClientNew();
}

void
testClose(TestDispatch *test)
{
    virCheckpointDispatchHooks()->closed(test->client, test->dispatch);
    virCheckpointDispatchFree(test->dispatch);
    virCheckpointClientUnref(test->client);
    fakeEngineFree(test->engine);
}

virCheckpointProtoDomain
testDomain(void)
{
    virCheckpointProtoDomain dom = {.name = (gchar *)"stale", .id = -1};

    virCheckpointWireUuidParse(FAKE_UUID, dom.uuid);
    return dom;
}

virCheckpointVerdict
testCallBytes(TestDispatch *test, gint procedure, GBytes *bytes)
{
    g_autoptr(virCheckpointFrame) frame = fakeCall(procedure, ++test->serial, bytes);

    return virCheckpointDispatchHooks()->call(test->client, frame, test->dispatch);
}

virCheckpointVerdict
testText(TestDispatch *test, gint procedure, const gchar *text, guint flags)
{
    virCheckpointProtoDomainTextFlags args = {
        .dom = testDomain(), .text = (gchar *)text, .flags = flags};

    return testCallBytes(
        test, procedure,
        virCheckpointWireEncode(virCheckpointProtoDomainTextFlags, &args));
}

virCheckpointVerdict
testNamed(TestDispatch *test, gint procedure, const gchar *name, guint flags)
{
    virCheckpointProtoCheckpointFlags args = {
        .checkpoint = {.name = (gchar *)name, .dom = testDomain()}, .flags = flags};

    return testCallBytes(
        test, procedure,
        virCheckpointWireEncode(virCheckpointProtoCheckpointFlags, &args));
}

virCheckpointVerdict
testDomainFlags(TestDispatch *test, gint procedure, guint flags)
{
    virCheckpointProtoDomainFlags args = {.dom = testDomain(), .flags = flags};

    return testCallBytes(test, procedure,
                         virCheckpointWireEncode(virCheckpointProtoDomainFlags, &args));
}

const virCheckpointFrame *
testAnswer(TestDispatch *test, guint count, gint procedure)
{
    const virCheckpointFrame *frame = fakeWaitSent(test->client, count);

    g_assert_cmpint(frame->type, ==, VIR_CHECKPOINT_FRAME_REPLY);
    g_assert_cmpint(frame->procedure, ==, procedure);
    g_assert_cmpuint(frame->serial, ==, test->serial);
    g_assert_cmpuint(frame->version, ==, 1);
    return frame;
}

gboolean
testDecode(xdrproc_t proc, const virCheckpointFrame *frame, gpointer out)
{
    gsize length;
    const guint8 *payload = virCheckpointFramePayload(frame, &length);

    return virCheckpointWireDecodeRaw(proc, payload, length, out);
}

void
testExpectError(TestDispatch *test,
                guint count,
                gint procedure,
                gint code,
                gint from,
                const gchar *message)
{
    const virCheckpointFrame *frame = testAnswer(test, count, procedure);
    g_auto(virCheckpointProtoError) error = {0};

    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_ERROR);
    g_assert_true(testDecode((xdrproc_t)xdr_virCheckpointProtoError, frame, &error));
    g_assert_cmpint(error.code, ==, code);
    g_assert_cmpint(error.domain, ==, from);
    g_assert_cmpint(error.level, ==, 2);
    g_assert_cmpstr(virCheckpointWireOptString(error.message), ==, message);
}

void
testExpectLog(TestDispatch *test, const gchar *want)
{
    g_autofree gchar *log = fakeEngineLog(test->engine);

    g_assert_cmpstr(log, ==, want);
}

virCheckpointProtoParam
testString(const gchar *field, const gchar *text)
{
    virCheckpointProtoParam param = {.field = (gchar *)field, .value = {.type = 7}};

    param.value.virCheckpointProtoValue_u.s = (gchar *)text;
    return param;
}

virCheckpointProtoParam
testNumber(const gchar *field, gint type, guint64 number)
{
    virCheckpointProtoParam param = {.field = (gchar *)field, .value = {.type = type}};

    if (type == VIR_TYPED_PARAM_ULLONG)
        param.value.virCheckpointProtoValue_u.ul = number;
    else
        param.value.virCheckpointProtoValue_u.i = (gint)number;
    return param;
}

virCheckpointVerdict
testCopyCall(TestDispatch *test, virCheckpointProtoParam *params, guint n, guint flags)
{
    virCheckpointProtoCopy args = {.dom = testDomain(),
                                   .path = (gchar *)"vda",
                                   .destxml = (gchar *)"<disk/>",
                                   .flags = flags};

    args.params.params_val = params;
    args.params.params_len = n;
    return testCallBytes(test, 345,
                         virCheckpointWireEncode(virCheckpointProtoCopy, &args));
}

virCheckpointVerdict
testRate(TestDispatch *test, gint procedure, guint64 value, guint flags)
{
    virCheckpointProtoDomainRate args = {
        .dom = testDomain(), .path = (gchar *)"vda", .value = value, .flags = flags};

    return testCallBytes(test, procedure,
                         virCheckpointWireEncode(virCheckpointProtoDomainRate, &args));
}
