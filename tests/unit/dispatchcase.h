/*
 * dispatchcase.h: calls of one client and what becomes of them
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_DISPATCHCASE_H
#define VIR_CHECKPOINT_DISPATCHCASE_H

#include "checkpoint_error.h"
#include "dispatchfake.h"

typedef struct TestDispatch {
    virCheckpointEngine *engine;
    virCheckpointDispatch *dispatch;
    virCheckpointClient *client;
    guint serial;
} TestDispatch;

void
testOpen(TestDispatch *test, const gchar *names);
void
testClose(TestDispatch *test);
virCheckpointProtoDomain
testDomain(void);
virCheckpointVerdict
testCallBytes(TestDispatch *test, gint procedure, GBytes *bytes);
virCheckpointVerdict
testText(TestDispatch *test, gint procedure, const gchar *text, guint flags);
virCheckpointVerdict
testNamed(TestDispatch *test, gint procedure, const gchar *name, guint flags);
virCheckpointVerdict
testDomainFlags(TestDispatch *test, gint procedure, guint flags);
/** The @count-th answer, checked to be one of the @count-th call. */
const virCheckpointFrame *
testAnswer(TestDispatch *test, guint count, gint procedure);
gboolean
testDecode(xdrproc_t proc, const virCheckpointFrame *frame, gpointer out);
void
testExpectError(TestDispatch *test,
                guint count,
                gint procedure,
                gint code,
                gint from,
                const gchar *message);
void
testExpectLog(TestDispatch *test, const gchar *want);
virCheckpointProtoParam
testString(const gchar *field, const gchar *text);
virCheckpointProtoParam
testNumber(const gchar *field, gint type, guint64 number);
virCheckpointVerdict
testCopyCall(TestDispatch *test, virCheckpointProtoParam *params, guint n, guint flags);
virCheckpointVerdict
testRate(TestDispatch *test, gint procedure, guint64 value, guint flags);

#endif
